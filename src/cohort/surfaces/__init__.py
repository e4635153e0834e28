"""Parse, call, render: command line, HTTP, dashboard. No decisions."""
