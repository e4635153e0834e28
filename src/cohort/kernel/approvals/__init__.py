"""A person's answer to one exact action.

For `compose`:

    approvals = SqlApprovals(database, audit, clock, entropy, ApprovalLimits(approvers_needed=settings.approvers_needed))
    webhook = ApprovalWebhook(settings.approval_webhook, resolve_reference(settings.approval_webhook.secret, environ), approvals, clock)
    approvals.listen(webhook.notify)       # every change, once it is durable
    webhook.start()                        # and webhook.stop() at the end; webhook.reply(headers, body) behind POST .../reply
    approvals.sweep()                      # every few seconds: what is past its time is recorded as expired

`SqlApprovals` is both the port `Approvals` and the face `ApprovalDesk`. A record is appended while the change it is about is still open, so
on SQLite the audit log needs a file of its own; on Postgres it may share the database. `plain.describe` writes the words that approvers read.
"""
