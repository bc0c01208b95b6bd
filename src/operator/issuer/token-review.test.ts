import { describe, expect, it } from "@jest/globals";
import { FakeClock } from "../../../test/fakes/fake-clock.ts";
import type { KubeClient } from "../../kube/client.ts";
import type { KubeObject } from "../../kube/objects.ts";
import type { TokenReview } from "../../kube/resources.ts";
import { callerOf, KubeTokenReviewer } from "./token-review.ts";

const status = {
  authenticated: true,
  audiences: ["drover-issuer"],
  user: {
    username: "system:serviceaccount:drover-system:drover-pool-default",
    extra: { "authentication.kubernetes.io/pod-uid": ["pod-1"] },
  },
};

/** An API server that answers token reviews only, and counts them. */
class ReviewServer implements Pick<KubeClient, "create"> {
  readonly asked: unknown[] = [];
  answer: TokenReview["status"] | Error = status;

  async create<T extends KubeObject>(_type: unknown, object: T): Promise<T> {
    this.asked.push(object);
    if (Error.isError(this.answer)) throw this.answer;
    return { ...object, status: this.answer };
  }
}

describe("callerOf", () => {
  it("names the pod and the service account of a good token", () => {
    expect(callerOf(status)).toEqual({
      podUid: "pod-1",
      serviceAccount: "drover-system/drover-pool-default",
    });
  });

  it.each([
    { name: "an unanswered review", given: undefined },
    { name: "a bad token", given: { ...status, authenticated: false } },
    { name: "a token for the API server", given: { ...status, audiences: ["kubernetes"] } },
    { name: "an API server without audiences", given: { authenticated: true, user: status.user } },
    { name: "a person", given: { ...status, user: { ...status.user, username: "jane" } } },
    { name: "a token bound to no pod", given: { ...status, user: { ...status.user, extra: {} } } },
  ])("refuses $name", ({ given }) => {
    expect(() => callerOf(given)).toThrow(expect.objectContaining({ code: "UNAUTHENTICATED" }));
  });
});

describe("KubeTokenReviewer", () => {
  it("asks for the issuer's audience and believes a good answer for 60 s", async () => {
    const server = new ReviewServer();
    const clock = new FakeClock();
    const reviewer = new KubeTokenReviewer({ client: server, clock });

    await reviewer.review("token-a");
    await clock.advance(59_000);
    await reviewer.review("token-a");
    await clock.advance(2000);
    await reviewer.review("token-a");

    expect(server.asked).toHaveLength(2);
    expect(server.asked[0]).toMatchObject({
      spec: { token: "token-a", audiences: ["drover-issuer"] },
    });
  });

  it("does not keep a refusal", async () => {
    const server = new ReviewServer();
    const reviewer = new KubeTokenReviewer({ client: server, clock: new FakeClock() });
    server.answer = { authenticated: false };
    await expect(reviewer.review("token-a")).rejects.toMatchObject({ code: "UNAUTHENTICATED" });

    server.answer = status;

    expect(await reviewer.review("token-a")).toMatchObject({ podUid: "pod-1" });
  });

  it("says it is unavailable when the API server does not answer, without the token", async () => {
    const server = new ReviewServer();
    server.answer = new Error("connection refused");
    const reviewer = new KubeTokenReviewer({ client: server, clock: new FakeClock() });

    await expect(reviewer.review("token-a")).rejects.toMatchObject({
      code: "UNAVAILABLE",
      message: expect.not.stringContaining("token-a"),
    });
  });
});
