import { oidVid } from '../protocol/oid.ts'

/** Which objects there are of each VDI. Takes about 40 bytes for each object. */
export class ObjectsByVdi {
  readonly #vdis = new Map<number, Set<bigint>>()

  constructor(oids: Iterable<bigint>) {
    for (const oid of oids) this.add(oid)
  }

  of(vid: number): Iterable<bigint> {
    return this.#vdis.get(vid) ?? []
  }

  add(oid: bigint): void {
    const vid = oidVid(oid)
    const oids = this.#vdis.get(vid)
    if (oids) oids.add(oid)
    else this.#vdis.set(vid, new Set([oid]))
  }

  remove(oid: bigint): void {
    const vid = oidVid(oid)
    const oids = this.#vdis.get(vid)
    oids?.delete(oid)
    if (oids?.size === 0) this.#vdis.delete(vid)
  }
}
