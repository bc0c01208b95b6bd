import type { Sabotage } from "../sabotage.ts";

const test = "test/security/t16-git-tokens.test.ts";

export const sabotages: readonly Sabotage[] = [
  {
    case: "T16",
    defence: "Words of a host's hooks go through redaction, across the pieces they come in",
    file: "src/proxy/roles/git/packet-relay.ts",
    find: "return [encodeBand(band, stream.push(payload.subarray(1)))];",
    replace: "return [encodeBand(band, payload.subarray(1))];",
    test,
  },
  {
    case: "T16",
    defence: "Names in an advertisement of refs go through redaction",
    file: "src/proxy/roles/git/packet-relay.ts",
    find: 'return [encodePkt(Buffer.from(this.#redactor.text(text), "latin1"))];',
    replace: 'return [encodePkt(Buffer.from(text, "latin1"))];',
    test,
  },
  {
    case: "T16",
    defence: "What a host says in an error goes through redaction",
    file: "src/proxy/roles/git/upstream.ts",
    find: 'upstream.redactor.text(Buffer.concat(chunks).toString("latin1"))',
    replace: 'Buffer.concat(chunks).toString("latin1")',
    test,
  },
  {
    case: "T16",
    defence: "A sandbox token is taken from the address of its sandbox only",
    file: "src/proxy/sandbox-token.ts",
    find: 'if (plainAddress(remoteAddress ?? "") !== plainAddress(claims.ip)) {',
    replace: "if (plainAddress(claims.ip) !== plainAddress(claims.ip)) {",
    test,
  },
  {
    case: "T16",
    defence: "A sandbox token is worth nothing once its sandbox is bound to nobody",
    file: "src/proxy/sandbox-token.ts",
    find: "if (problem !== undefined) throw problem;",
    replace: "if (problem !== undefined && binding !== null) throw problem;",
    test,
  },
  {
    case: "T16",
    defence: "A sandbox token is worth nothing once its session is terminated",
    file: "src/protocol/token-holder.ts",
    find: `  const ended = endedProblem(claims.sub, lease);
  if (ended !== undefined) return ended;
  const bound =`,
    replace: `  const ended = endedProblem(claims.sub, lease);
  if (lease === null) return ended;
  const bound =`,
    test,
    name: "opens nothing",
  },
];
