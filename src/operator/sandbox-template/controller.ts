import { sandboxTemplateSpec } from "../../api/sandbox-template.ts";
import type { Controller } from "../../kube/controller.ts";
import { AcceptedSpecController, type AcceptedSpecDeps } from "../accepted-spec.ts";
import { type SandboxTemplate, sandboxTemplates } from "../kinds.ts";

/** SandboxTemplate: says whether it can be used. Sessions pin it as it was when they started. */
export function createSandboxTemplateController(
  deps: Pick<AcceptedSpecDeps<SandboxTemplate>, "objects" | "client" | "clock">,
): Controller {
  return new AcceptedSpecController({
    ...deps,
    name: "sandbox-template",
    type: sandboxTemplates,
    schema: sandboxTemplateSpec,
  });
}
