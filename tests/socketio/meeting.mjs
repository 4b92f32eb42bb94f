// A meeting instance on real Socket.IO, with the contract of the sample one (`twinsite meeting-instance`) and its
// options: rooms live in the memory of this process and nowhere else, as in the meeting service.
//
//   node meeting.mjs --listen 10.0.0.5:3443 --name gra-meet-1 --announced-file PATH [--exit-with-stdin]

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { isIPv6 } from "node:net";
import { parseArgs } from "node:util";
import { Server } from "socket.io";

const NAME_BYTES_MAX = 256;

const { values: options } = parseArgs({
  options: {
    listen: { type: "string" },
    name: { type: "string" },
    "announced-file": { type: "string" },
    "exit-with-stdin": { type: "boolean", default: false },
  },
});
for (const needed of ["listen", "name", "announced-file"]) {
  if (!options[needed]) {
    console.error(`meeting.mjs: --${needed} is required`);
    process.exit(2);
  }
}

/** Participants by room. */
const rooms = new Map();

const announced = async () => {
  try {
    return (await readFile(options["announced-file"], "utf8")).trim() || null;
  } catch {
    return null;
  }
};

const answer = (response, status, body) => {
  const text = JSON.stringify(body);
  response.writeHead(status, {
    "content-type": "application/json",
    "content-length": Buffer.byteLength(text),
    "cache-control": "no-store",
  });
  response.end(text);
};

const http = createServer(async (request, response) => {
  const { pathname } = new URL(request.url, "http://meeting.invalid");
  if (pathname === "/health") {
    let peers = 0;
    for (const room of rooms.values()) peers += room.size;
    answer(response, 200, { status: "ok", timestamp: new Date().toISOString(), rooms: rooms.size, peers });
  } else if (pathname === "/announced") {
    answer(response, 200, { announcedIp: await announced() });
  } else {
    response.writeHead(200, { "content-type": "text/html" });
    response.end("<!doctype html><title>Meeting</title><h1>Meeting</h1>\n");
  }
});

const io = new Server(http, { serveClient: false });
io.on("connection", async (socket) => {
  const { roomId: room, peerId: peer } = socket.handshake.query;
  const fits = (name) => typeof name === "string" && name !== "" && Buffer.byteLength(name) <= NAME_BYTES_MAX;
  if (!fits(room) || !fits(peer)) {
    socket.disconnect(true);
    return;
  }
  const members = rooms.get(room) ?? new Set();
  rooms.set(room, members);
  members.add(socket.id);
  socket.on("disconnect", () => {
    members.delete(socket.id);
    if (members.size === 0 && rooms.get(room) === members) rooms.delete(room);
  });
  socket.on("say", (word) => {
    if (Number.isSafeInteger(word)) io.to(room).emit("said", { peer, word, instance: options.name });
  });
  await socket.join(room);
  socket.emit("welcome", { instance: options.name, announcedIp: await announced() });
});

const [, host, port] = options.listen.match(/^\[?([^\]]+?)\]?:(\d+)$/) ?? [];
http.on("error", (error) => {
  console.error(`meeting.mjs: cannot listen on ${options.listen}: ${error.message}`);
  process.exit(1);
});
http.listen({ host, port: Number(port), ipv6Only: isIPv6(host ?? "") });

if (options["exit-with-stdin"]) {
  process.stdin.on("end", () => process.exit(0)).resume();
}
