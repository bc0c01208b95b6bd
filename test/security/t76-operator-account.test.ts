import { readFileSync } from "node:fs";
import { describe, expect, it } from "@jest/globals";
import { aSandboxPod } from "../builders/pods.ts";
import { readPolicies, refusals } from "./admission-policy.ts";
import { OPERATOR, ownWork, TENANT, thefts } from "./operator-requests.ts";

/**
 * T76: whoever takes the operator over has its account. The policies that bind the account, evaluated
 * without an API server; `test/security/api/t76-operator-account.test.ts` shows the same on a real one.
 */

const policies = readPolicies(readFileSync("deploy/admission/operator-policy.yaml", "utf8"));
const as = { operation: "CREATE" as const, username: OPERATOR };

describe("the operator's account", () => {
  it.each(ownWork)("makes $name", ({ name: _name, ...request }) => {
    expect(refusals(policies, { ...as, ...request })).toEqual([]);
  });

  it.each(thefts)("does not make $name", ({ name: _name, message, ...request }) => {
    const refused = refusals(policies, { ...as, ...request });

    expect(refused).toContainEqual(expect.stringContaining(message));
  });

  it("makes nothing of a pool in another namespace than its own", () => {
    const [request] = ownWork;
    if (request === undefined) throw new Error("there is work");

    expect(refusals(policies, { ...as, ...request, namespace: TENANT })).toHaveLength(1);
  });

  it("deletes sandboxes, and no other pod", () => {
    const oldObject = aSandboxPod();
    const foreign = { ...oldObject, metadata: { ...oldObject.metadata, ownerReferences: [] } };
    const removal = { ...as, operation: "DELETE" as const, resource: "/pods", namespace: TENANT };

    expect(refusals(policies, { ...removal, oldObject })).toEqual([]);
    expect(refusals(policies, { ...removal, oldObject: foreign })).toHaveLength(1);
  });

  it("leaves what a session is to do to its owner", () => {
    const session = (operatingMode: string, finalizers: string[] = []) => ({
      metadata: { name: "s", finalizers },
      spec: { operatingMode },
    });
    const resource = "drover.dev/agentsessions";
    const change = (object: object) =>
      refusals(policies, {
        ...as,
        operation: "UPDATE",
        resource,
        namespace: TENANT,
        object,
        oldObject: session("Running"),
      });

    expect(change(session("Running", ["drover.dev/session"]))).toEqual([]);
    expect(change(session("Stopped"))).toHaveLength(1);
  });

  it("is the only one that is held to this", () => {
    const [theft] = thefts;
    if (theft === undefined) throw new Error("there are thefts");

    expect(refusals(policies, { ...as, ...theft, username: "admin" })).toEqual([]);
  });
});
