import { describe, expect, it } from "@jest/globals";
import { FakeKube } from "../../test/fakes/fake-kube.ts";
import {
  applyOwned,
  type Claim,
  isForeignObject,
  ownerReferenceTo,
  ownershipOf,
} from "./ownership.ts";
import { configMaps, pods } from "./resources.ts";

const config = (name: string) => ({
  apiVersion: "v1",
  kind: "ConfigMap",
  metadata: { name, namespace: "one" },
});
const options = { fieldManager: "drover" };

function start() {
  const kube = new FakeKube();
  const owner = kube.seed(pods, { ...config("owner"), kind: "Pod" });
  const reference = ownerReferenceTo(pods, owner);
  return { kube, claim: { owner: reference } satisfies Claim, reference };
}

describe("ownership", () => {
  it("is ours by the UID of the controller reference, not by its name", () => {
    const { claim, reference } = start();
    const owned = (change: object) => ({
      metadata: { ownerReferences: [{ ...reference, ...change }] },
    });

    expect(ownershipOf(owned({}), claim)).toBe("ours");
    expect(ownershipOf(owned({ uid: "other" }), claim)).toBe("someone else's");
    expect(ownershipOf(owned({ controller: false }), claim)).toBe("nobody's");
    expect(ownershipOf({ metadata: {} }, claim)).toBe("nobody's");
  });

  it("by label: ours with our value, another's with another value or a controller", () => {
    const { reference } = start();
    const claim = { label: "managed-by", value: "drover" };

    expect(ownershipOf({ metadata: { labels: { "managed-by": "drover" } } }, claim)).toBe("ours");
    expect(ownershipOf({ metadata: { labels: { "managed-by": "x" } } }, claim)).toBe(
      "someone else's",
    );
    expect(ownershipOf({ metadata: { ownerReferences: [reference] } }, claim)).toBe(
      "someone else's",
    );
    expect(ownershipOf({ metadata: {} }, claim)).toBe("nobody's");
  });

  it("an owner that was never stored cannot be referred to", () => {
    expect(() => ownerReferenceTo(pods, { metadata: { name: "a" } })).toThrow(
      'Pod "a" has no UID yet',
    );
  });

  it("applies what does not exist or is ours, with the reference added", async () => {
    const { kube, claim, reference } = start();
    await applyOwned(kube, configMaps, { ...config("a"), data: { n: "1" } }, claim, options);
    await applyOwned(kube, configMaps, { ...config("a"), data: { n: "2" } }, claim, options);

    expect(kube.peek(configMaps, config("a").metadata)).toMatchObject({
      metadata: { ownerReferences: [reference] },
      data: { n: "2" },
    });
  });

  it.each([
    { name: "nobody's", ownerReferences: [] },
    {
      name: "someone else's",
      ownerReferences: [
        { apiVersion: "v1", kind: "Pod", name: "owner", uid: "x", controller: true },
      ],
    },
  ])("refuses what is $name, and says so", async ({ name, ownerReferences }) => {
    const { kube, claim } = start();
    const metadata = { ...config("a").metadata, ownerReferences };
    kube.seed(configMaps, { ...config("a"), metadata });

    const error: unknown = await applyOwned(kube, configMaps, config("a"), claim, options).catch(
      (reason: unknown) => reason,
    );

    expect(isForeignObject(error)).toBe(true);
    expect(String(error)).toContain(
      `ConfigMap "one/a" exists and is ${name} (wanted: owned by Pod "owner")`,
    );
    expect(kube.requestsOf("apply")).toEqual([]);
  });
});
