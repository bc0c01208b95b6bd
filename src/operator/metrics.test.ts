import { expect, it } from "@jest/globals";
import { aSession, CREATED_MS } from "../../test/builders/kinds.ts";
import { Registry } from "../runtime/metrics.ts";
import type { AgentSession } from "./kinds.ts";
import { observeSessions } from "./metrics.ts";

const HOUR_MS = 3_600_000;

/** Made an hour ago, in this condition for so many seconds. */
function inCondition(status: "True" | "False", reason: string, seconds: number): AgentSession {
  const lastTransitionTime = new Date(CREATED_MS + HOUR_MS - seconds * 1000).toISOString();
  const ready = { type: "Ready", status, reason, message: "", observedGeneration: 1 };
  return { ...aSession(), status: { conditions: [{ ...ready, lastTransitionTime }] } };
}

it("waiting is counted from when a session stopped being ready, not from its creation", async () => {
  const registry = new Registry();
  const sessions = [
    inCondition("False", "Pending", 20),
    inCondition("False", "Pending", 50),
    inCondition("False", "NoHarness", 300),
    inCondition("True", "Running", 900),
    aSession(),
  ];
  observeSessions(registry, { list: () => sessions }, () => CREATED_MS + HOUR_MS);

  const text = await registry.metrics();
  expect(text.match(/^drover_session_oldest_waiting_seconds\{.*$/gm)).toEqual([
    'drover_session_oldest_waiting_seconds{reason="Pending"} 50',
    'drover_session_oldest_waiting_seconds{reason="NoHarness"} 300',
  ]);
});
