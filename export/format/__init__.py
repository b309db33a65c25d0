"""The contract between export and service: the format of artifacts. Imports no torch."""
