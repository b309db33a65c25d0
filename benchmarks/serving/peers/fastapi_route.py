"""The way most people begin: async routes of FastAPI that call ONNX Runtime."""

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, UploadFile
from work import Work  # beside this file

app = FastAPI()
work = Work()


@app.post("/predict")
async def predict(request: Request) -> dict[str, Any]:
    """One picture, as the body."""
    return work.infer([work.decode(await request.body())])[0]


@app.post("/upload")
async def upload(image: UploadFile) -> dict[str, Any]:
    """One picture, as a form's file."""
    return work.infer([work.decode(await image.read())])[0]


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False)
