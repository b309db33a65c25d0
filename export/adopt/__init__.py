"""Adopt a network that was written elsewhere: from any ``nn.Module`` with a spatial transformer to an artifact.

source ─► checks ─► tracing ─► network ─► `export.onnx`, `export.parity`
imports    tries     finds      what is
and loads  it out    samplers   served
"""
