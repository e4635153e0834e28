"""The tamper-evident log: an RFC 6962 tree of records under signed checkpoints.

`room.open_audit` puts it together: `AuditRoom.log` is the port `AuditLog`, `AuditRoom.desk` the face `Audit`. The caller migrates the
database, calls `start()` before the first action and `stop()` at the end:

    database = open_database(audit_url); database.migrate()
    room = open_audit(database, clock, entropy, key_file=data.audit_key, origin=f"{trust_domain}/audit/{installation}", anchors=anchors)
    room.start()

A SQLite installation keeps the log in a file of its own, so that its commits do not queue behind those of the rest and a reader needs no
more than that file. It gets every table of the product, empty but for those of the log: one chain of migrations for every database is worth
more than the few pages. `offline.open_audit_offline` reads a log whose product is not running.
"""
