import { expect, it } from "@jest/globals";
import { aSession } from "../../../test/builders/kinds.ts";
import { ANNOTATIONS } from "../../api/names.ts";
import { derivedSessionId } from "../../sessions/ids.ts";
import type { AgentSession } from "../kinds.ts";
import { sessionIdIndex, sessionRefOf } from "./session-ref.ts";

const pool = { code: "pool", partitions: 16 };

function pinned({ annotation, status }: { annotation?: string; status?: string }): AgentSession {
  const session = aSession();
  const { metadata } = session;
  return {
    ...session,
    metadata: {
      ...metadata,
      annotations: annotation === undefined ? {} : { [ANNOTATIONS.sessionId]: annotation },
    },
    ...(status === undefined ? {} : { status: { sessionId: status } }),
  };
}

const own = derivedSessionId(aSession().metadata.uid ?? "", pool);
const foreign = derivedSessionId("uid-of-another", pool);

it.each([
  { name: "neither", given: {}, want: undefined },
  { name: "an annotation of its own", given: { annotation: own }, want: own },
  { name: "a status of its own", given: { status: own }, want: own },
  { name: "the annotation of another session", given: { annotation: foreign }, want: undefined },
  {
    name: "another's annotation and its status",
    given: { annotation: foreign, status: own },
    want: own,
  },
  { name: "an annotation that is no id", given: { annotation: "x:*/.." }, want: undefined },
  { name: "an empty annotation", given: { annotation: "" }, want: undefined },
])("a session with $name has the log $want", ({ given, want }) => {
  const session = pinned(given);

  expect(sessionRefOf(session)?.id).toBe(want);
  expect(sessionIdIndex(session)).toEqual(want === undefined ? [] : [want]);
});
