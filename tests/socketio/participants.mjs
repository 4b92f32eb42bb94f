// Participants of meetings with the real Socket.IO client: its own transports, its own ways of noticing that a connection
// is dead, and its own back-off, none of which is configured here, as in the page of the meeting service.
//
// Prints one line of JSON for each thing that happens, until standard input ends:
//   {"at_ms":…,"peer":3,"room":1,"event":"connected","instance":"gra-meet-1","announcedIp":"10.0.0.100"}
//   {"at_ms":…,"peer":3,"room":1,"event":"heard","from":4,"word":7,"instance":"gra-meet-1"}
//   {"at_ms":…,"peer":3,"room":1,"event":"disconnected","reason":"transport error"}
// The first of each room says a word every second, the others listen; for a line on standard input each says a word.
//
//   node participants.mjs --url http://10.0.0.100:8080 --participants 20 --rooms 5 [--from ADDRESS,ADDRESS,…]

import { Agent } from "node:http";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { io } from "socket.io-client";

const SAY_EVERY_MS = 1_000;

const { values: options } = parseArgs({
  options: {
    url: { type: "string" },
    participants: { type: "string", default: "20" },
    rooms: { type: "string", default: "5" },
    from: { type: "string", default: "" },
  },
});
const participants = Number(options.participants);
const rooms = Number(options.rooms);
if (!options.url || !(participants > 0) || !(rooms > 0)) {
  console.error("participants.mjs: --url URL, and --participants and --rooms above 0, are required");
  process.exit(2);
}

const agents = options.from.split(",").filter(Boolean).map((localAddress) => new Agent({ localAddress }));
const meeting = Math.random().toString(36).slice(2);
const tell = (what) => process.stdout.write(`${JSON.stringify({ at_ms: Date.now(), ...what })}\n`);

const attend = (peer) => {
  const room = peer % rooms;
  const socket = io(options.url, {
    query: { roomId: `${meeting}-${room}`, peerId: `p${peer}` },
    forceNew: true,
    agent: agents[peer % agents.length],
  });
  let word = 0;
  const say = () => {
    // What is said while nobody listens would be said later, all at once.
    if (socket.connected) socket.volatile.emit("say", (word += 1));
  };
  socket.on("welcome", (welcome) => tell({ peer, room, event: "connected", ...welcome }));
  socket.on("disconnect", (reason) => tell({ peer, room, event: "disconnected", reason }));
  socket.on("said", ({ from, word: heard, instance }) =>
    tell({ peer, room, event: "heard", from: Number(from.slice(1)), word: heard, instance }),
  );
  if (peer < rooms) setInterval(say, SAY_EVERY_MS);
  return say;
};

const all = Array.from({ length: participants }, (_, peer) => attend(peer));
createInterface({ input: process.stdin })
  .on("line", () => all.forEach((say) => say()))
  .on("close", () => process.exit(0));
