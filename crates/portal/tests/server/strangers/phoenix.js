// A client of the framework's own, in the framing that it is told: joins, asks, leaves, and says what it heard.
// Arguments: the address without `/websocket`, parameters as JSON, the version of the framing.
const { Socket, Serializer } = require("phoenix");
const WebSocket = require("ws");

// A client must say what program it is.
class Transport extends WebSocket {
  constructor(url) {
    super(url, { headers: { "user-agent": "Linux/6 gui-client/1.5.12" } });
  }
}

const [endpoint, params, vsn] = process.argv.slice(2);
const options = { transport: Transport, params: JSON.parse(params), vsn };
if (vsn === "1.0.0") {
  // What the package wrote before it had arrays.
  options.encode = (message, callback) => callback(JSON.stringify(message));
  options.decode = (text, callback) => callback(JSON.parse(text));
}
const fail = (what) => {
  console.log("failed", what);
  process.exit(1);
};
setTimeout(() => fail("to end in time"), 10000);

const socket = new Socket(endpoint, options);
socket.onError((error) => fail(error?.message ?? "to connect"));
socket.connect();
const channel = socket.channel("client", {});
channel.on("init", (init) => {
  console.log("init", init.resources.map((resource) => resource.name).join());
  channel.push("no_relays", {});
});
channel.on("relays_presence", (presence) => {
  console.log("relays_presence", presence.connected.length);
  socket.ping(() => {
    console.log("heartbeat");
    channel.push("nonsense", {}).receive("error", (answer) => {
      console.log("error", answer.reason);
      channel.leave().receive("ok", () => {
        console.log("left");
        socket.disconnect(() => process.exit(0));
      });
    });
  });
});
channel
  .join()
  .receive("ok", () => console.log("joined"))
  .receive("error", (answer) => fail(answer.reason));
