import { agentSpec } from "../../api/agent.ts";
import type { Controller } from "../../kube/controller.ts";
import { AcceptedSpecController, type AcceptedSpecDeps } from "../accepted-spec.ts";
import { type Agent, agents } from "../kinds.ts";

/** Agent: says whether it can be used. Sessions read it when they start, and never again. */
export function createAgentController(
  deps: Pick<AcceptedSpecDeps<Agent>, "objects" | "client" | "clock">,
): Controller {
  return new AcceptedSpecController({ ...deps, name: "agent", type: agents, schema: agentSpec });
}
