"""Static Invoice Sidecar: a bLIP 66 static invoice server beside LND."""

__version__ = "0.1.0"
