"""The action gate: the only road from an agent to the machine.

To build it, `compose` hands in:

- `Policies(file, settings)`: `file` from `kernel.policy_file` or None; `settings` a mapping of what decides besides the policies
  (`isolation_min`, `require_user_approval`), part of every policy hash. Never raises: a broken file refuses every action until `reload()`.
- `Quotas(database, clock, running)`: `running(agent)` counts the agent's live processes. `close()` at the end.
- `Keys(database, clock)`: idempotency keys.
- `Rooms(audit, entries, identities, approvals, workspaces, policies, quotas, keys, level)`: the rooms behind the gate. `entries(action)`:
  that action's records of the audit log, oldest first (`Audit.search` reversed). `level()`: the sandbox's probed level.
- `GateSettings(audience, level_min, approval_required, keep_payloads)`.
- `Gate(rooms, settings, executors, clock, entropy)`: `face.Actions`. `executors` from `executors/`: `FileExecutors(workspaces, files, search)`,
  `Commands(workspaces, sandbox, hosts_of)`,
  `ProcessExecutors(workspaces, processes, hosts_of)`, `Requests(resolve_public)`, each with `.executors()`; `system_read(monitor)` for
  `system.read`, `delegate(tokens)` for `agent.delegate`. Rooms above register theirs: `gate.register(operation, executor)`.
  At the start `gate.note_policy("control")` says in the log which policy is in force; `gate.reload_policy(actor)` reads the file again.
- `Executions(folder, clock)`: the journal of executions, a folder of its own in the data directory. Its `spawned` is the sandbox's `on_spawn`,
  its `reached(action, host)` is for the egress proxy's allowed connections, and `observed(executors)` wraps the executors on the host (all but
  those that spawn: `terminal.run`, `python.run`, `process.start`) before they are handed to the gate. `close()` at the end.
- `Reconciler(journal, entries, owner, clock)`: `owner(workspace)` is the id of its agent or None. `counts()` is `KernelFace.safety`.
  `ReconcilerThread(reconciler)`: `start()`, `stop()`.

Nothing else here starts a thread or reads the environment.
"""
