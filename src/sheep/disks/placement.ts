import { StoreError } from '../../errors.ts'
import { formatOid, oidKind } from '../../protocol/oid.ts'
import type { Random } from '../../runtime/random.ts'
import type { StoredObject } from '../stored-object.ts'
import type { Member } from './member.ts'
import type { Membership } from './membership.ts'
import type { Volume } from './volume.ts'

/** Bytes of a file system that will be free when they are wanted, beyond those that are. */
export type RoomComing = (volume: Volume) => number
const NOTHING_COMES: RoomComing = () => 0

/**
 * Which disk each object is on, how one is chosen for a new object, and how much room there is. An object that is being removed
 * keeps its disk until the checkpoint of that is complete.
 */
export class Placement {
  readonly #membership: Membership
  readonly #random: Random
  readonly #reserveBytes: number
  /** Objects that are not on the first disk. */
  readonly #places = new Map<bigint, Member>()
  /** Objects that are removed, though not in the files yet, by name; and whether there is one of that name again. */
  readonly #removing = new Map<bigint, { objects: Set<StoredObject>; isMadeAgain: boolean; place: Member }>()
  /** Objects that may have two files at the moment, which have to stay the same; see Evacuation. */
  readonly moving = new Set<bigint>()

  constructor(membership: Membership, { random, reserveBytes }: { random: Random; reserveBytes: number }) {
    this.#membership = membership
    this.#random = random
    this.#reserveBytes = reserveBytes
  }

  /** Where a data object is; the first disk for all that it does not know. */
  placeOf(oid: bigint): Member {
    return this.#places.get(oid) ?? this.#membership.home
  }

  /** Where an object is that is known to be on a disk other than the first. */
  knownPlaceOf(oid: bigint): Member | undefined {
    return this.#places.get(oid)
  }

  /** Objects that are not on the first disk. */
  get apart(): number {
    return this.#places.size
  }

  /** Whether a large write may go into the file of an object now. */
  takesPlaced(oid: bigint): boolean {
    return !this.moving.has(oid)
  }

  /**
   * Chooses a disk for a new object, and for `bytes` of it, by room. One that takes the name of an object whose removal is not
   * in the files yet goes where that one is: a path must not mean two things.
   */
  place(oid: bigint, bytes: number): void {
    const removing = this.#removing.get(oid)
    if (removing) removing.isMadeAgain = true
    if (removing && !this.placeOf(oid).failure) return
    this.moveTo(
      oid,
      this.#membership.isSpread && oidKind(oid) === 'data' ? this.#choose(bytes, null) : this.#membership.home,
    )
  }

  /** A new object has its file already, on that disk. */
  placeOn(oid: bigint, member: Member): void {
    const removing = this.#removing.get(oid)
    if (removing) removing.isMadeAgain = true
    this.moveTo(oid, member)
  }

  /** The object was not made after all. */
  unplace(oid: bigint): void {
    const removing = this.#removing.get(oid)
    if (removing) removing.isMadeAgain = false
    else this.#forget(oid)
  }

  /** A disk other than `from` that has room for an object that leaves; null when none has. */
  placeFor(bytes: number, from: Member): Member | null {
    const member = this.#choose(bytes, from)
    return member !== from && this.roomOf(member) >= bytes ? member : null
  }

  /** The object is on that disk now. */
  moveTo(oid: bigint, member: Member): void {
    this.#forget(oid)
    if (member.isHome) return
    this.#places.set(oid, member)
    member.objects++
  }

  #forget(oid: bigint): void {
    const before = this.#places.get(oid)
    if (before) before.objects--
    this.#places.delete(oid)
  }

  /** The object is being removed: its file is there until a checkpoint calls `removed`. */
  removing(object: StoredObject): void {
    const { objects = new Set<StoredObject>(), place = this.placeOf(object.oid) } = this.#removing.get(object.oid) ?? {}
    this.#removing.set(object.oid, { objects: objects.add(object), isMadeAgain: false, place })
  }

  /** The checkpoint of a removal is complete. */
  removed(object: StoredObject): void {
    const removing = this.#removing.get(object.oid)
    if (!removing?.objects.delete(object) || removing.objects.size > 0) return
    this.#removing.delete(object.oid)
    if (!removing.isMadeAgain) this.#forget(object.oid)
  }

  /** The disk with the file of a removed object, when the object that has its name now is on another one. */
  strandedPlaceOf(object: StoredObject): Member | null {
    const place = this.#removing.get(object.oid)?.place
    return !place || place.failure || place === this.placeOf(object.oid) ? null : place
  }

  /** Those of a name that are being removed. */
  removingOf(oid: bigint): Iterable<StoredObject> {
    return this.#removing.get(oid)?.objects ?? []
  }

  isRemoving(oid: bigint): boolean {
    return this.#removing.has(oid)
  }

  /** The objects of a disk other than the first. */
  oidsOn(member: Member): bigint[] {
    return [...this.#places].filter(([, place]) => place === member).map(([oid]) => oid)
  }

  #choose(bytes: number, except: Member | null): Member {
    const open = this.#membership.members.filter((member) => member.takesNew && member !== except)
    if (open.length === 1) return open[0]!
    const rooms = open.map((member) => {
      const sharing = open.filter((other) => other.volume === member.volume).length
      return { member, room: this.roomOf(member), weight: Math.max(0, this.roomOf(member)) / sharing }
    })
    const fitting = rooms.filter(({ room }) => room >= bytes)
    if (fitting.length === 0) return rooms.reduce((best, next) => (next.room > best.room ? next : best)).member
    const total = fitting.reduce((sum, { weight }) => sum + weight, 0)
    let at = (this.#random.bytes(4).readUInt32LE() / 2 ** 32) * total
    for (const { member, weight } of fitting) {
      at -= weight
      if (at < 0) return member
    }
    return fitting.at(-1)!.member
  }

  /** What may still be allocated on a disk, so that the reserve stays free. */
  roomOf(member: Member): number {
    return member.volume.unpromisedBytes - this.#reserveBytes
  }

  /** Whether a new data object of `bytes` fits somewhere, and `homeBytes` of its map on the first disk. */
  hasRoomForNew(bytes: number, homeBytes: number, comingOn = NOTHING_COMES): boolean {
    const { home, isSpread, members } = this.#membership
    const roomOf = (member: Member) => this.roomOf(member) + comingOn(member.volume)
    if (!isSpread) return roomOf(home) >= bytes + homeBytes
    if (roomOf(home) < homeBytes) return false
    return members.some((member) => {
      if (!member.takesNew) return false
      return roomOf(member) >= bytes + (member.volume === home.volume ? homeBytes : 0)
    })
  }

  hasRoomFor(oid: bigint, bytes: number, comingOn = NOTHING_COMES): boolean {
    const place = this.placeOf(oid)
    return this.roomOf(place) + comingOn(place.volume) >= bytes
  }

  promise(generation: number, oid: bigint, bytes: number): void {
    this.placeOf(oid).volume.promise(generation, bytes)
  }

  /** A generation is in the object files: what was promised to it is taken, and counts as such after `refresh`. */
  settle(generation: number): void {
    for (const member of this.#membership.members) member.volume.settle(generation)
  }

  /** What there is in all, and what of it changes may take, as of the last `refresh`. */
  room(): { totalBytes: number; freeBytes: number } {
    return this.sum(this.#reserveBytes)
  }

  /** As `room`, with another reserve. */
  sum(reserveBytes: number): { totalBytes: number; freeBytes: number } {
    const volumes = new Set(this.#membership.members.filter((member) => !member.failure).map((member) => member.volume))
    let totalBytes = 0
    let freeBytes = 0
    for (const volume of volumes) {
      totalBytes += volume.totalBytes
      freeBytes += Math.max(0, volume.freeBytes - reserveBytes)
    }
    return { totalBytes, freeBytes }
  }

  /** The file system that a write found full has no room until the next `refresh`. */
  assumeFull(error: unknown): void {
    const path = (error as { memberPath?: string }).memberPath
    const member = this.#membership.members.find((candidate) => candidate.path === path) ?? this.#membership.home
    member.volume.freeBytes = 0
  }

  /** Why an object may be gone that a map names; null when no disk has failed. */
  lossOf(oid: bigint): StoreError | null {
    const place = this.placeOf(oid)
    if (place.failure) return place.failure
    const [lost] = this.#membership.absent
    if (!lost || oidKind(oid) !== 'data') return null
    return new StoreError(
      'DiskFailed',
      `object ${formatOid(oid)} is lost with ${this.#membership.absent.map((d) => d.path)}`,
    )
  }
}
