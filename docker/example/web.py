"""A web application that knows nothing of workerd but one SQL function: POST /greetings stores a greeting and enqueues its job."""

from __future__ import annotations

import asyncio
import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import asyncpg

TABLE = "CREATE TABLE IF NOT EXISTS greeting (name text NOT NULL, job bigint NOT NULL)"
SECRET = Path("/run/secrets/database_url")
DATABASE_URL = os.environ.get("DATABASE_URL") or SECRET.read_text().strip()


async def order(name: str) -> int:
    """Both or neither: the row of ours and the job."""
    connection = await asyncpg.connect(DATABASE_URL)
    try:
        async with connection.transaction():
            await connection.execute(TABLE)
            payload = json.dumps({"name": name})
            job: int = await connection.fetchval("SELECT workerd.enqueue('greet', $1::jsonb)", payload)
            await connection.execute("INSERT INTO greeting (name, job) VALUES ($1, $2)", name, job)
            return job
    finally:
        await connection.close()


class Greetings(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = json.dumps({"job": asyncio.run(order(body["name"]))}).encode()
        self.send_response(202)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(answer + b"\n")


if __name__ == "__main__":
    ThreadingHTTPServer(("", 8080), Greetings).serve_forever()
