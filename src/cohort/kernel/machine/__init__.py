"""Processes, the monitor and resource limits.

For `compose`:

    processes = AgentProcesses(sandbox, database, clock, entropy, control="a name that is the same after a restart", over=over)
    processes.recover()                    # once, before anything is started: what a former life of this control ran is lost, and said so
    processes.close()                      # at the end: everything they run ends
    monitor = Monitor(clock, disks=(data_dir, workspace_root)); monitor.start(); monitor.stop()
    resources = Resources(capacity(workspace_root), overcommit=2.0)
    resources.load(agents.list())          # then `reserve` before an agent is registered, `release` after it was revoked
    Spawner(begun=lambda pid: give(pid, Priority.LOW))   # every command after control and the gateway
    holdings(agent.limits, Mechanisms(...))              # which limits hold here, for `cohort doctor` and the agent's page

`over(agent, session)` says whether a session has ended or an agent may not act any more; their processes end within `OVER_LOOK_S`.
`processes.running` is what `Quotas` counts, `processes.stop_all` what suspending and revoking an agent calls, `Monitor.read` what
`system.read` answers.
"""
