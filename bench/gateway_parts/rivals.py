"""The peers: nginx where it is installed; LiteLLM and Portkey where `make peers` has put them."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

from gateway_parts.cases import CHAT, PROMPT, STREAM
from gateway_parts.processes import Target, free_port, start, wait_for_port

PEERS = Path(os.environ.get("COHORT_PEERS", Path(__file__).resolve().parents[2] / ".peers"))
"""Where the environments of peers are. Outside version control."""


def start_rivals(folder: Path, core: int, upstream_port: int, processes: list[subprocess.Popen[bytes]]) -> list[Target]:
    """Those that are there; the others are named on standard error."""
    made = []
    for name, starter, there in (
        ("nginx", start_nginx, shutil.which("nginx") is not None),
        ("LiteLLM", start_litellm, (PEERS / "litellm/bin/litellm").exists()),
        ("Portkey", start_portkey, (PEERS / "portkey/node_modules/@portkey-ai/gateway").exists()),
    ):
        if not there:
            sys.stderr.write(f"{name} is not installed: left out ({'apt-get install nginx-light' if name == 'nginx' else 'make peers'})\n")
            continue
        process, target = starter(folder, core, upstream_port)
        processes.append(process)
        made.append(target)
    return made


def start_litellm(folder: Path, core: int, upstream_port: int) -> tuple[subprocess.Popen[bytes], Target]:
    """LiteLLM's proxy with one worker, no database, the one key it insists on, no telemetry, logs at their least."""
    port, key = free_port(), "sk-" + secrets.token_hex(16)
    parameters = {"model": "openai/m", "api_base": f"http://127.0.0.1:{upstream_port}/v1", "api_key": "none"}
    config = {"model_list": [{"model_name": "bench", "litellm_params": parameters}], "litellm_settings": {"telemetry": False}}
    (folder / "litellm.yaml").write_text(json.dumps(config))  # JSON is YAML
    binary = str(PEERS / "litellm/bin/litellm")
    quiet = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION", "DISABLE_ADMIN_UI": "True"}
    quiet["LITELLM_MASTER_KEY"] = key
    arguments = ["--config", str(folder / "litellm.yaml"), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    process = start([binary, *arguments], core, folder / "litellm.log", quiet)
    wait_for_port(port)
    return process, Target("LiteLLM", dict.fromkeys((CHAT, STREAM, PROMPT), port), [process.pid], {"Authorization": f"Bearer {key}"}, True)


def start_portkey(folder: Path, core: int, upstream_port: int) -> tuple[subprocess.Popen[bytes], Target]:
    """Portkey's open gateway, told in headers where to go."""
    port = free_port()
    script = str(PEERS / "portkey/node_modules/@portkey-ai/gateway/build/start-server.js")
    process = start(["node", script, f"--port={port}", "--headless"], core, folder / "portkey.log")
    wait_for_port(port)
    headers = {
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"http://127.0.0.1:{upstream_port}/v1",
        "Authorization": "Bearer none",
    }
    return process, Target("Portkey", dict.fromkeys((CHAT, STREAM, PROMPT), port), [process.pid], headers, True)


def start_nginx(folder: Path, core: int, upstream_port: int) -> tuple[subprocess.Popen[bytes], Target]:
    """As a reverse proxy; on a port of its own for streams, which it does not buffer there."""
    port, stream_port = free_port(), free_port()
    proxied = 'proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; client_body_buffer_size 512k;'
    (folder / "nginx.conf").write_text(
        f"""daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
        events {{ worker_connections 1024; }}
        http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;
          uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; keepalive_requests 1000000000;
          upstream up {{ server 127.0.0.1:{upstream_port}; keepalive 64; keepalive_requests 1000000000; }}
          server {{ listen 127.0.0.1:{port}; tcp_nodelay on; location / {{ {proxied} }} }}
          server {{ listen 127.0.0.1:{stream_port}; tcp_nodelay on; location / {{ {proxied} proxy_buffering off; }} }} }}
        """
    )
    process = start(["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)], core, folder / "nginx.out")
    wait_for_port(port)
    return process, Target("nginx", {CHAT: port, STREAM: stream_port, PROMPT: port}, [process.pid])
