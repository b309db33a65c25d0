"""TorchServe: a front in Java, a worker in Python that gets batches.

Starts Java itself, as the ``torchserve`` command does, in a folder that goes away with it.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import ts

MAX_BATCH = 32
MODEL = {
    "marName": "model.mar",
    "defaultVersion": True,
    "minWorkers": 1,
    "maxWorkers": 1,
    "batchSize": MAX_BATCH,
    "maxBatchDelay": 1,
    "responseTimeout": 60,
}
MANIFEST = {
    "runtime": "python",
    "model": {"modelName": "model", "modelVersion": "1", "handler": "torchserve_handler.py"},
}

if __name__ == "__main__":
    port, home, beside = int(sys.argv[1]), Path(ts.__file__).parent, Path(__file__).resolve().parent
    settings = {
        "inference_address": f"http://127.0.0.1:{port}",
        "management_address": f"http://127.0.0.1:{port + 1}",
        "grpc_inference_port": port + 2,
        "grpc_management_port": port + 3,
        "disable_token_authorization": "true",
        "enable_metrics_api": "false",
        "disable_system_metrics": "true",
        "model_store": ".",
        "load_models": MODEL["marName"],
        "models": json.dumps({"model": {"1": MODEL}}),
    }
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # or the folder stays
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with zipfile.ZipFile(folder / "model.mar", "w") as archive:
            archive.writestr("MAR-INF/MANIFEST.json", json.dumps(MANIFEST))
        (folder / "config.properties").write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        (folder / "log4j2.properties").write_text("rootLogger.level=error\n")
        java = ["java", f"-Djava.io.tmpdir={folder}", "-Dlog4j2.configurationFile=log4j2.properties"]
        java += [f"-Dmodel_server_home={home.parent}", "-cp", f"{home}/frontend/*", "org.pytorch.serve.ModelServer"]
        environment = os.environ | {"PYTHONPATH": str(beside)}
        subprocess.run([*java, "--python", sys.executable], cwd=folder, env=environment, check=True)
