import type { Sabotage } from "../sabotage.ts";

const test = "test/security/t29-edge-connections.test.ts";

export const sabotages: readonly Sabotage[] = [
  {
    case: "T29",
    defence: "One address holds a few connections of the edge, whatever it sends",
    file: "src/proxy/http-server.ts",
    find: "if (count <= maxOfOneAddress) return;",
    replace: "if (count <= max) return;",
    test,
    name: "neighbour is served",
  },
  {
    case: "T29",
    defence: "A refused connection is closed on both sides",
    file: "src/proxy/http-server.ts",
    find: "if (socket instanceof Socket) socket.destroySoon();",
    replace: "if (socket instanceof Socket) socket.end();",
    test,
    name: "does not close it",
  },
];
