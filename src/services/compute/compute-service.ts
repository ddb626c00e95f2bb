/** Who runs the servers that volumes are attached to, and has to be told of what happens to a volume in use. */
export interface ComputeService {
  /**
   * Tells each of the servers. May be repeated. Rejects with ComputeRefused when the service takes no such word, and with
   * ServiceUnavailable while it, or whoever vouches for this one, cannot be reached. That a single server cannot make use of it is
   * only logged, as upstream does.
   */
  notify(event: VolumeEvent, servers: readonly string[], requestId: string | null): Promise<void>
  /**
   * Asks for a server to go over from one volume to another: it attaches the new one, copies what the old one holds while the guest
   * goes on, and completes the migration through our API, whichever way it ended. Resolves when the service has begun. Rejects as
   * `notify`; then it may have begun all the same.
   */
  swap(volumes: { oldId: string; newId: string }, server: string, requestId: string | null): Promise<void>
  /** The attachment by which a server has a volume; null when there is no such server, or it has not. Rejects as `notify`. */
  attachmentOf(volumeId: string, server: string, requestId: string | null): Promise<string | null>
}

export interface VolumeEvent {
  /** It is larger: the server may look. Or an image was written over it: the server waits for that. */
  name: 'volume-extended' | 'volume-reimaged'
  volumeId: string
}
