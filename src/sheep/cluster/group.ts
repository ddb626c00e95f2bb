/**
 * What the store asks of corosync, of etcd, or of nothing at all: who is there, and one order of messages among those who are.
 * A driver promises no more than corosync's closed process groups do, which is little:
 *
 * 1. A member sees a sequence of configurations and, in each, messages. Members that go from one configuration to the same
 *    next one are told the same messages in the same order in between. Those that part may each have been told more.
 * 2. Nothing is durable. Whoever was told a message may die with all others who were.
 * 3. A message is told in the configuration that holds when it is delivered, which may be a later one than that in which it was
 *    sent, and has its sender; messages of one sender come in their order. Or it is lost, when it is sent before the first
 *    configuration, when it is too long, or when the configuration changes. The sender is told its own messages in their turn.
 * 4. A configuration is no majority: a member that is cut off goes on, alone, in one of its own, and is told its own messages.
 * 5. Who is a member need not be well: a process that was stopped stays in for a while, and acts on old news when it goes on. It may
 *    be put out and come in again as the same member.
 * 6. `quorate` comes at any time before or after the configuration that it is about. It can only forbid.
 */
export interface Group {
  /** This member, as the configurations and messages of all name it. Never used again by another start of any node. */
  readonly self: MemberId
  /** To all members, this one included. Never throws; a message that cannot be sent is lost. */
  send(message: Buffer): void
  /** Resolves when the others know, or cannot be told. Nothing is told to the listener from now on. */
  leave(): Promise<void>
}

/** Says nothing by itself: what belongs to a member is in the messages that it sends. */
export type MemberId = string

export interface Configuration {
  /** The same on all members of the configuration, and never used for another one. */
  readonly id: string
  /** In the same order on all members; has this one. */
  readonly members: readonly MemberId[]
}

/** Called one at a time, never from within `join` or `send`. */
export interface GroupListener {
  configured(configuration: Configuration): void
  delivered(sender: MemberId, message: Buffer): void
  /** What the driver's own count of votes says. Never called where it has none. */
  quorate(isQuorate: boolean): void
  /** The driver has come to its end (corosync died, the lease is gone): who joins again is another member. */
  lost(reason: Error): void
}

/** A way to join one cluster's group. Rejects with an error that says what to do when the engine cannot be reached. */
export type JoinGroup = (listener: GroupListener) => Promise<Group>

/** What one message may have at most. */
export const MESSAGE_BYTES_MAX = 256 * 1024
