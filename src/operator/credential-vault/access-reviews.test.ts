import { describe, expect, it } from "@jest/globals";
import { FakeClock } from "../../../test/fakes/fake-clock.ts";
import type { KubeObject, ResourceType } from "../../kube/objects.ts";
import { AccessReviews } from "./access-reviews.ts";

const read = { serviceAccount: { namespace: "drover", name: "drover-edge" }, secret: "deploy" };

function start() {
  const clock = new FakeClock();
  const state = { allowed: true };
  const asked: unknown[] = [];
  const reviews = new AccessReviews({
    clock,
    client: {
      create: async <T extends KubeObject>(_type: ResourceType<T>, review: T): Promise<T> => {
        asked.push(review);
        return { ...review, status: { allowed: state.allowed } };
      },
    },
  });
  const review = async (secret = "deploy") =>
    (await reviews.review("team-a", { ...read, secret }, new AbortController().signal)).allowed;
  return { clock, state, asked, review };
}

describe("AccessReviews", () => {
  it("asks whether the account may get that one Secret", async () => {
    const { asked, review } = start();

    expect(await review()).toBe(true);
    expect(asked).toEqual([
      expect.objectContaining({
        spec: {
          user: "system:serviceaccount:drover:drover-edge",
          groups: ["system:serviceaccounts", "system:serviceaccounts:drover"],
          resourceAttributes: {
            namespace: "team-a",
            verb: "get",
            resource: "secrets",
            name: "deploy",
          },
        },
      }),
    ]);
  });

  it("sees a grant at once and a withdrawal after ten minutes", async () => {
    const { clock, state, asked, review } = start();
    state.allowed = false;
    expect([await review(), await review()]).toEqual([false, false]);
    state.allowed = true;
    expect(await review()).toBe(true);
    state.allowed = false;

    await clock.advance(599_000);
    expect(await review()).toBe(true);
    await clock.advance(1000);
    expect(await review()).toBe(false);
    expect(asked).toHaveLength(4);
  });

  it("takes one Secret's grant for no other's", async () => {
    const { state, review } = start();
    await review();
    state.allowed = false;

    expect(await review("other")).toBe(false);
  });
});
