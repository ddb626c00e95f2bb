/** Who asks, and for which project: made once per request by the API's door, passed down unchanged. */
export interface RequestContext {
  requestId: string
  /** The caller's own id of the whole chain of requests (X-OpenStack-Request-ID), for the log. */
  globalRequestId: string | null
  userId: string
  projectId: string
  roles: readonly string[]
  isAdmin: boolean
  /** True when a service (Nova) vouches for the call with X-Service-Token. */
  isService: boolean
  /** What the caller showed, for services that are asked on his behalf; never logged. */
  token: string
  /**
   * Throws PolicyNotAuthorized unless the rule allows the action on the target. Rules about an owned object run in
   * the service, where the row is known.
   */
  authorize(rule: string, target: { projectId: string }): void
  /** Whether the rule allows the action in the caller's own project: for what an answer shows. */
  allows(rule: string): boolean
}
