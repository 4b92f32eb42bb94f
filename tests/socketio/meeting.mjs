// A meeting instance on real Socket.IO, with the contract and the options of the sample one (`twinsite meeting-instance`).
// Rooms live in the memory of this process and nowhere else, as in the meeting service.
//
//   node meeting.mjs --listen 10.0.0.5:3443 --name gra-meet-1 --announced-file PATH [--answers-file PATH] [--exit-with-stdin]

import { readFile, stat } from "node:fs/promises";
import { createServer } from "node:http";
import { parseArgs } from "node:util";
import { Server } from "socket.io";

const NAME_BYTES_MAX = 256;
const FILE_BYTES_MAX = 256;
const MESSAGE_BYTES_MAX = 64 * 1024;
const ROOMS_MAX = 10_000;
const PEERS_PER_ROOM_MAX = 500;
/** How late slow answers are: later than any probe waits. */
const SLOW_MS = 1_500;
/** How long the last byte of a truncated answer is waited for. */
const LAST_BYTE_MS = 60_000;

const { values: options } = parseArgs({
  options: {
    listen: { type: "string" },
    name: { type: "string" },
    "announced-file": { type: "string" },
    "answers-file": { type: "string" },
    "exit-with-stdin": { type: "boolean", default: false },
  },
});
const place = options.listen?.match(/^(?:\[([0-9a-f:.]+)\]|([0-9.]+)):(\d+)$/i);
if (!place || !options.name || !options["announced-file"]) {
  console.error("meeting.mjs: --listen ADDRESS:PORT, --name NAME and --announced-file FILE are required");
  process.exit(2);
}

/** The sockets of the participants, by room. */
const rooms = new Map();

/** What a small file says at this moment. */
const told = async (path) => {
  try {
    if (!path || (await stat(path)).size > FILE_BYTES_MAX) return null;
    return (await readFile(path, "utf8")).trim() || null;
  } catch {
    return null;
  }
};

const announced = () => told(options["announced-file"]);

/** Answers as the file says: `slow`, `errors`, `wrong` and `truncated` are what broken servers do. */
const answer = async (response, how, body) => {
  if (how === "slow") await new Promise((done) => setTimeout(done, SLOW_MS));
  const wrong = { errors: { error: "out of order" }, wrong: { status: "error" } }[how];
  const bytes = Buffer.from(JSON.stringify(wrong ?? body));
  response.writeHead(how === "errors" ? 500 : 200, {
    "content-type": "application/json",
    "content-length": bytes.length,
    "cache-control": "no-store",
  });
  if (how === "truncated") {
    response.write(bytes.subarray(0, -1));
    setTimeout(() => response.destroy(), LAST_BYTE_MS).unref();
  } else {
    response.end(bytes);
  }
};

const http = createServer(async (request, response) => {
  const path = request.url.split("?", 1)[0];
  // A drill looks there for itself, and must see what is so.
  const how = path === "/announced" ? null : await told(options["answers-file"]);
  let peers = 0;
  for (const room of rooms.values()) peers += room.size;
  const health = { status: "ok", instance: options.name, timestamp: new Date().toISOString(), rooms: rooms.size, peers };
  const bodies = { "/health": health, "/announced": { announcedIp: await announced() } };
  await answer(response, how, bodies[path] ?? { page: "a meeting instance for tests; rooms are at /socket.io/" });
});

const fits = (name) => typeof name === "string" && name !== "" && Buffer.byteLength(name) <= NAME_BYTES_MAX;
const hasPlace = (room) =>
  rooms.has(room) ? rooms.get(room).size < PEERS_PER_ROOM_MAX : rooms.size < ROOMS_MAX;

const io = new Server(http, { serveClient: false, maxHttpBufferSize: MESSAGE_BYTES_MAX });
io.on("connection", async (socket) => {
  const { roomId: room, peerId: peer } = socket.handshake.query;
  if (!fits(room) || !fits(peer) || !hasPlace(room)) {
    socket.disconnect(true);
    return;
  }
  const members = rooms.get(room) ?? new Set();
  rooms.set(room, members);
  members.add(socket.id);
  socket.on("disconnect", () => {
    members.delete(socket.id);
    if (members.size === 0) rooms.delete(room);
  });
  socket.on("say", (word) => {
    if (Number.isSafeInteger(word)) io.to(room).emit("said", { from: peer, word, instance: options.name });
  });
  await socket.join(room);
  socket.emit("welcome", { instance: options.name, announcedIp: await announced() });
});

http.on("error", (error) => {
  console.error(`meeting.mjs: cannot listen on ${options.listen}: ${error.message}`);
  process.exit(1);
});
http.listen({ host: place[1] ?? place[2], port: Number(place[3]) });

if (options["exit-with-stdin"]) {
  process.stdin.on("end", () => process.exit(0)).resume();
}
