import type { ExportRight } from './entries.ts'

/** All export rights: by the attachment that has one, by the hash of the export's name, and by VDI. */
export class ExportTable {
  readonly #byAttachment = new Map<string, ExportRight>()
  readonly #byHash = new Map<string, ExportRight>()
  /** Ids of attachments. */
  readonly #byVid = new Map<number, Set<string>>()

  get size(): number {
    return this.#byAttachment.size
  }

  has(attachmentId: string): boolean {
    return this.#byAttachment.has(attachmentId)
  }

  get(attachmentId: string): ExportRight | undefined {
    return this.#byAttachment.get(attachmentId)
  }

  keys(): IterableIterator<string> {
    return this.#byAttachment.keys()
  }

  values(): IterableIterator<ExportRight> {
    return this.#byAttachment.values()
  }

  byHash(nameHash: string): ExportRight | undefined {
    return this.#byHash.get(nameHash)
  }

  of(vid: number): ExportRight[] {
    return Array.from(this.#byVid.get(vid) ?? [], (id) => this.#byAttachment.get(id)!)
  }

  countOf(vid: number): number {
    return this.#byVid.get(vid)?.size ?? 0
  }

  /** As `put`. Sent again under the same name, what is open under it goes on. */
  give(right: ExportRight): void {
    const known = this.#byAttachment.get(right.attachmentId)
    const gateway = known?.nameHash === right.nameHash ? known.gateway : undefined
    this.put(gateway ? { ...right, gateway } : right)
  }

  /** In the place of what the attachment had before. */
  put(right: ExportRight): void {
    this.drop(right.attachmentId)
    this.#byAttachment.set(right.attachmentId, right)
    this.#byHash.set(right.nameHash, right)
    const ofVid = this.#byVid.get(right.vid)
    if (ofVid) ofVid.add(right.attachmentId)
    else this.#byVid.set(right.vid, new Set([right.attachmentId]))
  }

  /** Nothing when the right is not there. */
  limit(attachmentId: string, limits: object | null): void {
    const right = this.#byAttachment.get(attachmentId)
    if (!right) return
    const { limits: _, ...unlimited } = right
    this.put(limits === null ? unlimited : { ...unlimited, limits })
  }

  drop(attachmentId: string): void {
    const right = this.#byAttachment.get(attachmentId)
    if (!right) return
    this.#byAttachment.delete(attachmentId)
    this.#byHash.delete(right.nameHash)
    const ofVid = this.#byVid.get(right.vid)
    ofVid?.delete(attachmentId)
    if (ofVid?.size === 0) this.#byVid.delete(right.vid)
  }
}
