"""The invoice assistant: reads invoices out of e-mails. An ordinary user of workerd's public names, and the example to copy from."""

from __future__ import annotations

from invoices.tasks import cleanup_files, ocr_extract, process_email, send_notification

__all__ = ["cleanup_files", "ocr_extract", "process_email", "send_notification"]
