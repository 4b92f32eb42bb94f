// Participants of meetings with the real Socket.IO client and its own ways of noticing that a connection is dead and of
// coming back: what browsers do. Prints one JSON line for each thing that happens, until standard input ends.
//
//   node participants.mjs --url http://10.0.0.100:8080 --participants 20 --rooms 5

import { parseArgs } from "node:util";
import { io } from "socket.io-client";

const SAY_EVERY_MS = 200;

const { values: options } = parseArgs({
  options: {
    url: { type: "string" },
    participants: { type: "string", default: "20" },
    rooms: { type: "string", default: "5" },
  },
});
const participants = Number(options.participants);
const rooms = Number(options.rooms);
if (!options.url || !(participants > 0) || !(rooms > 0)) {
  console.error("participants.mjs: --url, and --participants and --rooms above 0, are required");
  process.exit(2);
}

const meeting = Math.random().toString(36).slice(2);
const tell = (what) => process.stdout.write(`${JSON.stringify({ at_ms: Date.now(), ...what })}\n`);

for (let number = 0; number < participants; number += 1) {
  const peer = `p${number}`;
  const room = number % rooms;
  // Default transports: long polling first, then an upgrade, as the meeting service's page does.
  const socket = io(options.url, { query: { roomId: `${meeting}-${room}`, peerId: peer }, forceNew: true });
  let word = 0;
  socket.on("welcome", ({ instance }) => tell({ peer, room, event: "welcome", instance }));
  socket.on("said", ({ peer: from, word: heard, instance }) =>
    tell({ peer, room, event: "heard", from, word: heard, instance }),
  );
  socket.on("disconnect", (reason) => tell({ peer, room, event: "disconnected", reason }));
  setInterval(() => {
    // What is said while nobody listens would be said again later, all at once.
    if (socket.connected) socket.volatile.emit("say", (word += 1));
  }, SAY_EVERY_MS);
}

process.stdin.on("end", () => process.exit(0)).resume();
