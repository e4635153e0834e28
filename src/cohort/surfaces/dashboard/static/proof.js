// Checks in the page that an entry is in the signed log: RFC 6962 inclusion with the browser's own SHA-256, and the checkpoint's
// Ed25519 signature where the browser knows it. What is then shown is what was proven, not what the page came with.
"use strict";
(() => {
  const subtle = self.crypto && self.crypto.subtle;
  const API = "/api/v1/audit";
  const text = new TextEncoder();

  const fromBase64 = (coded) => Uint8Array.from(atob(coded), (sign) => sign.charCodeAt(0));
  const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const same = (one, other) => hex(one) === hex(other);
  const sha256 = async (...parts) => new Uint8Array(await subtle.digest("SHA-256", await new Blob(parts).arrayBuffer()));
  const leafHash = (entry) => sha256(new Uint8Array([0]), entry);
  const nodeHash = (left, right) => sha256(new Uint8Array([1]), left, right);

  // RFC 9162, 2.1.3.2. Indexes are BigInt: a log may be larger than 2^53.
  async function rootOf(leaf, index, size, path) {
    if (index >= size) throw new Error("the entry is beyond the signed size");
    let node = index, last = size - 1n, root = leaf;
    for (const hash of path) {
      if (last === 0n) throw new Error("the proof is too long");
      if (node & 1n || node === last) {
        root = await nodeHash(hash, root);
        while (!(node & 1n) && node !== 0n) { node >>= 1n; last >>= 1n; }
      } else root = await nodeHash(root, hash);
      node >>= 1n;
      last >>= 1n;
    }
    if (last !== 0n) throw new Error("the proof is too short");
    return root;
  }

  // A C2SP tlog-proof: index, path, and the signed note behind an empty line.
  function parse(proof) {
    const cut = proof.indexOf("\n\n");
    const lines = proof.slice(0, cut).split("\n");
    if (cut < 0 || lines[0] !== "c2sp.org/tlog-proof@v1") throw new Error("this is no tlog-proof");
    const named = (name) => (lines.find((line) => line.startsWith(name + " ")) || "").slice(name.length + 1);
    const note = proof.slice(cut + 2), end = note.indexOf("\n\n");
    const [origin, size, root] = note.split("\n");
    return {
      index: BigInt(named("index")), entry: fromBase64(named("extra")), path: lines.slice(3).map(fromBase64),
      origin, size: BigInt(size), root: fromBase64(root), signed: note.slice(0, end + 1), signatures: note.slice(end + 2).trim().split("\n"),
    };
  }

  let known = null;

  async function key() {
    if (known === null) {
      const answer = await fetch(API + "/key");
      if (!answer.ok) throw new Error("the log's public key is missing");
      const [name, id, coded] = (await answer.text()).trim().split("+").reduce((parts, part) => parts.length < 3 ? [...parts, part] : [parts[0], parts[1], parts[2] + "+" + part], []);
      known = { name, id, bytes: fromBase64(coded).slice(1) };
    }
    return known;
  }

  // true, false, or null where this browser has no Ed25519.
  async function signedBy(signer, parsed) {
    const line = parsed.signatures.find((one) => one.startsWith("\u2014 " + signer.name + " ") && hex(fromBase64(one.split(" ")[2]).slice(0, 4)) === signer.id);
    if (!line) return false;
    let imported;
    try { imported = await subtle.importKey("raw", signer.bytes, { name: "Ed25519" }, false, ["verify"]); } catch { return null; }
    return subtle.verify({ name: "Ed25519" }, imported, fromBase64(line.split(" ")[2]).slice(4), text.encode(parsed.signed));
  }

  async function check(row, say) {
    const answer = await fetch(API + "/entries/" + row.dataset.index + "/proof");
    if (!answer.ok) throw new Error("there is no proof for it: " + (await answer.json()).detail);
    const parsed = parse((await answer.json()).text);
    if (parsed.index !== BigInt(row.dataset.index)) throw new Error("the proof is for entry " + parsed.index);
    const leaf = await leafHash(parsed.entry);
    if (hex(leaf) !== row.dataset.leaf) throw new Error("its bytes do not hash to the leaf shown here");
    say("Its " + parsed.entry.length + " bytes hash to the leaf " + hex(leaf).slice(0, 16) + "\u2026");
    const root = await rootOf(leaf, parsed.index, parsed.size, parsed.path);
    if (!same(root, parsed.root)) throw new Error("with its path the leaf does not lead to the signed root");
    say("With " + parsed.path.length + " hashes of the tree that leads to the root " + hex(root).slice(0, 16) + "\u2026 of " + parsed.size + " entries");
    const signer = await key();
    const right = await signedBy(signer, parsed);
    if (right === false) throw new Error("the checkpoint is not signed by " + signer.name);
    say(right === null ? "This browser has no Ed25519, so the signature under the root was not checked here" : "The root is signed by " + signer.name + ", key " + signer.id, right === null);
    row.querySelector(".json").textContent = JSON.stringify(JSON.parse(new TextDecoder().decode(parsed.entry)), null, 2);
    return right;
  }

  async function prove(row) {
    const steps = row.querySelector(".steps"), badge = row.querySelector(".seen");
    const say = (words, doubt = false) => {
      const step = document.createElement("li");
      step.className = doubt ? "wait" : "safe";
      step.textContent = words;
      steps.append(step);
    };
    const end = (tone, word) => {
      badge.hidden = false;
      badge.className = "seen " + tone;
      badge.textContent = word;
    };
    steps.textContent = "";
    steps.hidden = false;
    try {
      const right = await check(row, say);
      end(right === null ? "wait" : "safe", right === null ? "In the tree" : "Proven");
      return true;
    } catch (error) {
      const step = document.createElement("li");
      step.className = "harm";
      step.textContent = error.message;
      steps.append(step);
      end("harm", "Not proven");
      row.open = true;
      return false;
    }
  }

  function offer() {
    for (const button of document.querySelectorAll(".prove")) button.hidden = false;
    const all = document.getElementById("prove-all");
    if (all) all.hidden = !document.querySelector(".entry");
  }

  if (!subtle) {
    const said = document.getElementById("prove-said");
    if (said) said.textContent = "Entries can be verified in the page only over HTTPS or on this machine.";
    return;
  }
  document.addEventListener("click", async (event) => {
    const button = event.target.closest(".prove, #prove-all");
    if (!button) return;
    button.disabled = true;
    if (button.id === "prove-all") {
      const rows = Array.from(document.querySelectorAll(".entry"));
      const said = document.getElementById("prove-said");
      let proven = 0;
      for (const row of rows) {
        if (await prove(row)) proven += 1;
        said.textContent = proven + " of " + rows.length + " proven";
      }
    } else await prove(button.closest(".entry"));
    button.disabled = false;
  });
  const entries = document.getElementById("entries");
  if (entries) new MutationObserver(offer).observe(entries, { childList: true });
  offer();
})();
