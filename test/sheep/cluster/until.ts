const DEADLINE_MS = 45_000
const POLL_MS = 10

/** Whether the condition came to hold before the deadline, which is far beyond what anything here takes. */
export async function untilDeadline(condition: () => boolean): Promise<boolean> {
  const deadline = Date.now() + DEADLINE_MS
  while (!condition()) {
    if (Date.now() > deadline) return false
    await new Promise((resolve) => setTimeout(resolve, POLL_MS))
  }
  return true
}
