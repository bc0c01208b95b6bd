import { describe, expect, it } from "@jest/globals";
import { keyOf, refOf } from "./objects.ts";
import { collectionPath, creationPath, objectPath, withQuery } from "./request-path.ts";
import { deployments, nodes, pods } from "./resources.ts";

const pod = { name: "a", namespace: "one" };

describe("paths", () => {
  it.each([
    {
      name: "core kind in a namespace",
      path: collectionPath(pods, "one"),
      want: "/api/v1/namespaces/one/pods",
    },
    { name: "core kind everywhere", path: collectionPath(pods, undefined), want: "/api/v1/pods" },
    {
      name: "group",
      path: collectionPath(deployments, "one"),
      want: "/apis/apps/v1/namespaces/one/deployments",
    },
    {
      name: "cluster-scoped kind",
      path: objectPath(nodes, { name: "n" }),
      want: "/api/v1/nodes/n",
    },
    { name: "object", path: objectPath(pods, pod), want: "/api/v1/namespaces/one/pods/a" },
    {
      name: "sub-resource",
      path: objectPath(pods, pod, "status"),
      want: "/api/v1/namespaces/one/pods/a/status",
    },
    { name: "creation", path: creationPath(pods, pod), want: "/api/v1/namespaces/one/pods" },
    {
      name: "creation below an object",
      path: creationPath(pods, pod, "eviction"),
      want: "/api/v1/namespaces/one/pods/a/eviction",
    },
    {
      name: "odd characters",
      path: objectPath(pods, { name: "../x", namespace: "a/b" }),
      want: "/api/v1/namespaces/a%2Fb/pods/..%2Fx",
    },
  ])("of $name", ({ path, want }) => {
    expect(path).toBe(want);
  });

  it("a namespaced kind without namespace and an object without name are refused", () => {
    expect(() => objectPath(pods, { name: "a" })).toThrow('Pod "a" needs a namespace');
    expect(() => objectPath(pods, { name: "", namespace: "one" })).toThrow("a Pod needs a name");
  });

  it("a query leaves out what is undefined and escapes the rest", () => {
    expect(withQuery("/x", { a: undefined })).toBe("/x");
    expect(withQuery("/x", { a: "1", b: undefined, c: "p in (q, r)" })).toBe(
      "/x?a=1&c=p+in+%28q%2C+r%29",
    );
  });

  it("keys turn back into references", () => {
    for (const ref of [{ name: "a" }, pod]) expect(refOf(keyOf(ref))).toEqual(ref);
  });
});
