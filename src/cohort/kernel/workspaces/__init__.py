"""Where agents' files are: quotas, paths that cannot lead out, snapshots.

How `compose` assembles the room, with `opener = best_opener()`:

- As root, where `backend_image.available(...)` is None: `ImageBackend(images, mounts)`, `private_uids=True`. `images` is in the data
  directory; `mounts` is a directory such as `/run/cohort/NAME` whose parents others can pass through (mode 0711 or 0755).
- Otherwise `DirectoryBackend(workspace_root, clock, opener)`; `private_uids` when root.
- `SqlWorkspaces(database, clock, audit, backend, opener=..., busy=..., close=..., pool=Pool(backend, Size.of(Limits(...)), count, entropy), private_uids=...)`
  is the port `Workspaces`. `busy` answers whether the sandbox or the machine room has anything under way in a workspace. `start()`
  before anything else, `stop()` at the end. The identity room gets `create(agent, limits, actor)` for registrations.
- `Files(workspaces, opener)` and `Search(opener, clock)` for the action gate's executors (`read`, `list`, `stat`, `write`,
  `mkdir`, `move`, `delete`, `Search.find`); paths as text from `paths.canonical`, protection as
  `protected.protection`.
- `Desk(workspaces, Snapshots(database, clock, opener, entropy))` is the face `WorkspaceDesk`; its `start()` after that of the workspaces.
"""
