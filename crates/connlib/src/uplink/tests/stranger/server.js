// A portal on another WebSocket library, in the framework's object framing. It says its port, and then what it hears.
// The first connection is closed after the first message; the second one stays.
const { WebSocketServer } = require("ws");

const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
server.on("listening", () => console.log("port", server.address().port));
let connections = 0;
server.on("connection", (socket, request) => {
  connections += 1;
  const isFirst = connections === 1;
  console.log("open", new URL(request.url, "ws://x").pathname, request.headers["x-authorization"]);
  const push = (event, payload) =>
    socket.send(JSON.stringify({ topic: "client", event, payload, ref: null, join_ref: null }));
  socket.on("message", (data, isBinary) => {
    const { topic, event, payload, ref } = JSON.parse(data);
    console.log("heard", isBinary ? "binary" : "text", topic, event, JSON.stringify(payload), ref);
    if (event === "phx_join" || event === "heartbeat") {
      const reply = { status: "ok", response: {} };
      socket.send(JSON.stringify({ payload: reply, ref, topic, event: "phx_reply" }));
    }
    if (event === "phx_join") {
      push("presence_state", { nobody: "knows this" });
      push("resource_deleted", "0d6f2a10-9c3b-4e51-b7a2-5f1c8e9d0a11");
    }
    if (event === "no_relays") {
      // A large one comes in several frames.
      const connected = [];
      const filling = "x".repeat(100000);
      const text = JSON.stringify({ topic, event: "relays_presence", payload: { connected, disconnected_ids: [], filling }, ref: null });
      socket.send(text.slice(0, 50000), { fin: false });
      socket.send(text.slice(50000), { fin: true });
      if (isFirst) socket.close(1012, "restart");
    }
  });
  socket.on("close", (code) => console.log("closed", code));
});
