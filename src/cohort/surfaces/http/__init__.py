"""The HTTP API of the control process: parse, call, render. `app.create_app` is the door."""
