import { celEnv, isCelError, parse, plan } from "@bufbuild/cel";
import { parseAllDocuments } from "yaml";

/**
 * Evaluates ValidatingAdmissionPolicies without an API server: the same CEL, over the same objects.
 * What an API server adds (defaults, types, the limits on cost) only `test/security/api` shows.
 */

export interface AdmissionRequest {
  operation: "CREATE" | "UPDATE" | "DELETE";
  /** `apps/deployments`, `/pods`. */
  resource: string;
  namespace: string;
  username: string;
  object?: object;
  oldObject?: object;
}

interface Named {
  name: string;
  expression: string;
}

interface Policy {
  kind: string;
  metadata: { name: string };
  spec: {
    matchConditions?: Named[];
    matchConstraints: {
      resourceRules: { apiGroups: string[]; operations: string[]; resources: string[] }[];
    };
    variables?: Named[];
    validations: { expression: string; message: string }[];
  };
}

export function readPolicies(text: string): Policy[] {
  const objects = parseAllDocuments(text).map((document) => document.toJS() as Policy);
  return objects.filter(({ kind }) => kind === "ValidatingAdmissionPolicy");
}

/** Why the policies refuse the request; empty when they admit it. An expression that fails refuses. */
export function refusals(policies: readonly Policy[], request: AdmissionRequest): string[] {
  return policies
    .filter((policy) => matches(policy, request))
    .flatMap((policy) => {
      const input = inputOf(request);
      for (const { name, expression } of policy.spec.variables ?? []) {
        (input["variables"] as Record<string, unknown>)[name] = evaluate(expression, input);
      }
      return policy.spec.validations
        .filter(({ expression }) => evaluate(expression, input) !== true)
        .map(({ message }) => message);
    });
}

function matches({ spec }: Policy, request: AdmissionRequest): boolean {
  const [group, resource = ""] = request.resource.split("/");
  const concerned = spec.matchConstraints.resourceRules.some(
    ({ apiGroups, operations, resources }) =>
      apiGroups.includes(group ?? "") &&
      operations.includes(request.operation) &&
      resources.includes(resource),
  );
  const input = inputOf(request);
  return (
    concerned &&
    (spec.matchConditions ?? []).every(({ expression }) => evaluate(expression, input) === true)
  );
}

function inputOf({ operation, namespace, username, object, oldObject }: AdmissionRequest) {
  const input: Record<string, unknown> = {
    request: { operation, namespace, userInfo: { username } },
    object: object === undefined ? null : (JSON.parse(JSON.stringify(object)) as unknown),
    oldObject: oldObject === undefined ? null : (JSON.parse(JSON.stringify(oldObject)) as unknown),
    variables: {},
  };
  return input;
}

/** A failure of the expression, such as a field that is not there, is an Error: not true. */
function evaluate(expression: string, input: Record<string, unknown>): unknown {
  const result = plan(celEnv(), parse(expression))(input as Record<string, string>);
  return isCelError(result) ? new Error(String(result)) : result;
}
