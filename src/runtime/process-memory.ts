import { constants, PerformanceObserver } from "node:perf_hooks";
import { getHeapStatistics } from "node:v8";

/** How much memory this process may use and does use. */
export interface ProcessMemory {
  /** Bytes that V8 gives to objects at most; it follows from the container's limit or from a flag. */
  readonly heapLimit: number;
  /** Calls back after each full garbage collection: the only moments at which what lives is known. */
  onCollection(listener: (usage: MemoryUsage) => void): () => void;
}

export interface MemoryUsage {
  /** Bytes of objects that are still in use. */
  liveHeap: number;
  /** Share of the container's memory that the process takes up; 0 when it has no limit. */
  containerShare: number;
}

/** The limit of old objects. With a flag V8's own number has the room for young ones added to it. */
export function heapLimitOf(flags: readonly string[], v8Limit: number): number {
  const last = flags.findLast((flag) => OLD_SPACE.test(flag)) ?? "";
  const megabytes = Number(OLD_SPACE.exec(last)?.[1]);
  return megabytes > 0 ? Math.min(v8Limit, megabytes * 1024 * 1024) : v8Limit;
}

const OLD_SPACE = /^--max[-_]old[-_]space[-_]size=(\d+)$/;

export const systemMemory: ProcessMemory = {
  heapLimit: heapLimitOf(process.execArgv, getHeapStatistics().heap_size_limit),
  onCollection(listener) {
    const observer = new PerformanceObserver((list) => {
      if (
        list.getEntries().some((entry) => kindOf(entry) === constants.NODE_PERFORMANCE_GC_MAJOR)
      ) {
        listener(usageNow());
      }
    });
    observer.observe({ entryTypes: ["gc"] });
    return () => observer.disconnect();
  },
};

/** Node's types do not know what an entry about a collection carries. */
function kindOf(entry: object): unknown {
  const detail: unknown = "detail" in entry ? entry.detail : undefined;
  return typeof detail === "object" && detail !== null && "kind" in detail
    ? detail.kind
    : undefined;
}

function usageNow(): MemoryUsage {
  const { heapUsed, rss } = process.memoryUsage();
  const container = process.constrainedMemory();
  return { liveHeap: heapUsed, containerShare: container > 0 ? rss / container : 0 };
}
