import { expect, it } from "@jest/globals";
import { KubeError } from "../../kube/errors.ts";
import { refusalOf } from "./create-refusal.ts";

const forbidden = (message: string) => new KubeError(message, { status: 403, reason: "Forbidden" });

it.each([
  {
    name: "a full quota",
    message:
      'pods "x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0',
    want: { kind: "later", reason: "QuotaExceeded" },
  },
  {
    name: "an API server whose policies are not loaded yet",
    message: 'pods "x" is forbidden: not yet ready to handle request',
    want: { kind: "later", reason: "PodRefused" },
  },
  {
    name: "an API server that does not know the service account yet",
    message:
      'pods "x" is forbidden: error looking up service account team-a/drover-sandbox: not found',
    want: { kind: "later", reason: "PodRefused" },
  },
  {
    name: "rights that are missing, or not loaded yet",
    message:
      'pods is forbidden: User "u" cannot create resource "pods" in API group "" in the namespace "n"',
    want: { kind: "later", reason: "PodRefused" },
  },
  {
    name: "a policy that denies the pod",
    message: "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
    want: { kind: "never", reason: "PodRefused" },
  },
  {
    name: "a webhook that denies the pod",
    message: 'admission webhook "w" denied the request: no',
    want: { kind: "never", reason: "PodRefused" },
  },
  {
    name: "Pod Security",
    message: 'pods "x" is forbidden: violates PodSecurity "restricted:latest": seccompProfile',
    want: { kind: "never", reason: "PodRefused" },
  },
  {
    name: "a limit range",
    message:
      'pods "x" is forbidden: maximum memory usage per Container is 64Mi, but limit is 256Mi',
    want: { kind: "never", reason: "QuotaExceeded" },
  },
])("$name is a refusal for $want.kind", ({ message, want }) => {
  const refusal = refusalOf(forbidden(message));

  expect(refusal).toEqual({
    kind: want.kind,
    trouble: { reason: want.reason, message: expect.stringContaining(message) },
  });
});
