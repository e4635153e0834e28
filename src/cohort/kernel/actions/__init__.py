"""The action gate: the only road from an agent to the machine.

To build it, `compose` hands in:

- `Policies(file, settings)`: `file` from `kernel.policy_file` or None; `settings` a mapping of what decides besides the policies
  (`isolation_min`, `require_user_approval`), part of every policy hash. Never raises: a broken file refuses every action until `reload()`.
- `Quotas(database, clock, running)`: `running(agent)` counts the agent's live processes. `close()` at the end.
- `Keys(database, clock)`: idempotency keys.
- `Rooms(...)`: the rooms behind the gate; its docstring says what each field is. `canonical` is `workspaces.paths.canonical`, `protected`
  whether `workspaces.protected.protection` finds one, `listed` is `sandbox.egress.origin_allowed`, `level` the sandbox's probed level,
  `entries` the audit log's records of one action, oldest first.
- `GateSettings(audience, level_min, approval_required, keep_payloads)`.
- `Gate(rooms, settings, executors, clock, entropy)`: `face.Actions`. `executors` from `executors/`: `Commands(workspaces, sandbox, hosts_of)`,
  `ProcessExecutors(workspaces, processes, hosts_of)`, `Requests(resolve_public)`, each with `.executors()`; `system_read(monitor)` for
  `system.read`, `delegate(tokens, audience)` for `agent.delegate`. Rooms above register theirs: `gate.register(operation, executor)`.

Nothing here starts a thread or reads the environment.
"""
