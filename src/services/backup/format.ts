import { createHash } from 'node:crypto'
import { z } from 'zod'
import { ServiceError } from '../../errors.ts'
import { Checksum } from './checksum.ts'
import type { BackupTarget } from './target.ts'
import { VolumeRecord } from './volume-record.ts'

/**
 * How a backup lies on its target, below `<container>/<backup id>/`:
 *
 *   chunk-<index>   what has data of 4 MiB of the volume, compressed when that helps
 *   page-<index>    JSON: the chunks of 128 MiB of the volume, those with data: where in them that is, and its checksum
 *   manifest        JSON: what was backed up, whose it was, and what the volume was called; written last, removed first: a backup
 *                   without one is none
 *
 * Chunks and pages have marks too, as the driver gave them for the snapshot that was backed up: what has the same one in the next
 * snapshot has not changed.
 *
 * Pages and manifests end with the SHA-256 of what they say, so that no bit of a backup can change unseen.
 *
 * A chunk that an incremental backup found unchanged is not written again; its record names the backup that has it. Neither is a page of
 * which no chunk has changed: the manifest names the backup that has it. So a restore reads one list of pages, whatever the backup is
 * based on.
 */
export const CHUNK_BYTES = 4 * 1024 * 1024
export const PAGE_CHUNKS = 32
export const PAGE_BYTES = CHUNK_BYTES * PAGE_CHUNKS

const PAGE_FORMAT = 5
const MANIFEST_FORMAT = 4

/** One without a manifest is none; one that is incomplete lacks a page, or its manifest cannot be read. */
export type BackupState = 'whole' | 'without a manifest' | 'incomplete'

/** Where a backup is. */
export interface BackupLocation {
  container: string
  id: string
}

/** Where a chunk has data: an offset in the chunk, and a length. */
export type ChunkPiece = [offset: number, lengthBytes: number]
const ChunkPiece = z.tuple([z.int().min(0), z.int().min(1)])

const ChunkRecord = z.strictObject({
  /** Of the chunk in the volume: its offset divided by CHUNK_BYTES. */
  index: z.int().min(0),
  /** What of the chunk was kept, one piece behind the other; the rest is zeros. Null for all of it, in a volume's last chunk to its end. */
  pieces: z.array(ChunkPiece).refine(isAscending, 'pieces ascend, and end with the chunk').nullable(),
  /** Of the bytes of the volume that were kept. */
  checksum: Checksum,
  encoding: z.enum(['lz4', 'deflate', 'none']),
  /** The backup that has the chunk. */
  backup: z.uuid(),
  /** What the driver called these bytes; null when it could not tell, or the backup was made before that was kept. */
  mark: z.string().nullable(),
})
export type ChunkRecord = z.infer<typeof ChunkRecord>

const PageFields = z.strictObject({ format: z.literal(PAGE_FORMAT), chunks: z.array(ChunkRecord).max(PAGE_CHUNKS) })
/** Of before there were other checksums. */
const Sha256Chunk = ChunkRecord.omit({ checksum: true })
  .extend({ sha256: z.string().regex(/^[0-9a-f]{64}$/) })
  .strict()
const FourthPage = z.strictObject({
  format: z.literal(4),
  chunks: z.array(Sha256Chunk.transform(withChecksum)).max(PAGE_CHUNKS),
})
/** Of before chunks had pieces. */
const WholeChunk = Sha256Chunk.omit({ pieces: true }).strict()
const ThirdPage = z.strictObject({
  format: z.literal(3),
  chunks: z.array(WholeChunk.transform((record) => withChecksum({ ...record, pieces: null }))).max(PAGE_CHUNKS),
})
const UnmarkedChunk = WholeChunk.omit({ mark: true })
  .strict()
  .transform((record) => withChecksum({ ...record, pieces: null, mark: null }))
const SecondPage = z.strictObject({ format: z.literal(2), chunks: z.array(UnmarkedChunk).max(PAGE_CHUNKS) })
/** Of before pages had one too. */
const FirstPage = SecondPage.extend({ format: z.literal(1) })

/** A page of a volume that has data. */
export interface PageRecord {
  /** Its offset in the volume, divided by PAGE_BYTES. */
  page: number
  /** The backup that has the list of its chunks. */
  backup: string
  /** Of all its chunks, those without data too; null when one of them has none. */
  mark: string | null
}

const ManifestFields = z.strictObject({
  format: z.literal(MANIFEST_FORMAT),
  id: z.uuid(),
  parent_id: z.uuid().nullable(),
  volume_id: z.uuid(),
  snapshot_id: z.uuid().nullable(),
  size_gib: z.int().min(1),
  object_count: z.int().min(0),
  name: z.string().nullable(),
  description: z.string().nullable(),
  metadata: z.record(z.string(), z.string()),
  created_at: z.string(),
  data_timestamp: z.string(),
  /** Of pages with data, ascending: which page, which of `page_backups` has it, and its mark. */
  pages: z.array(z.tuple([z.int().min(0), z.int().min(0), z.string().nullable()])),
  page_backups: z.array(z.uuid()),
  /** What comes back with the bytes; null when the backup was made before that was kept. */
  volume: VolumeRecord.nullable(),
  /** Whose it was, and the key that its bytes open with; null when the backup was made before that was kept. */
  project_id: z.string().nullable(),
  user_id: z.string().nullable(),
  encryption_key_id: z.uuid().nullable(),
})
const ThirdManifest = ManifestFields.omit({ page_backups: true })
  .extend({ format: z.literal(3), pages: z.array(z.int().min(0)) })
  .strict()
const SecondManifest = ThirdManifest.omit({ project_id: true, user_id: true, encryption_key_id: true })
  .extend({ format: z.literal(2) })
  .strict()
const FirstManifest = SecondManifest.omit({ volume: true })
  .extend({ format: z.literal(1) })
  .strict()
const UNKNOWN_OWNER = { project_id: null, user_id: null, encryption_key_id: null }

const SHA256 = { sha256: z.string() }
const Page = z.union([
  PageFields.extend(SHA256).strict(),
  FourthPage.extend(SHA256).strict(),
  ThirdPage.extend(SHA256).strict(),
  SecondPage.extend(SHA256).strict(),
  FirstPage,
])
const Manifest = z.union([
  ManifestFields.extend(SHA256)
    .strict()
    .transform(({ page_backups: backups, pages, ...manifest }, context) => ({
      ...manifest,
      pages: pages.map(([page, at, mark]): PageRecord => {
        const backup = backups[at]
        if (backup === undefined) context.addIssue('a page is of no backup')
        return { page, backup: backup ?? manifest.id, mark }
      }),
    })),
  ThirdManifest.extend(SHA256).strict().transform(withOwnPages),
  SecondManifest.transform((manifest) => withOwnPages({ ...manifest, ...UNKNOWN_OWNER })),
  FirstManifest.transform((manifest) => withOwnPages({ ...manifest, ...UNKNOWN_OWNER, volume: null })),
])
export type Manifest = Omit<z.output<typeof Manifest>, 'format' | 'sha256'>

function isAscending(pieces: ChunkPiece[]): boolean {
  let end = 0
  for (const [offset, lengthBytes] of pieces) {
    if (offset < end) return false
    end = offset + lengthBytes
  }
  return end <= CHUNK_BYTES
}

function withChecksum<R extends { sha256: string }>({ sha256, ...record }: R) {
  return { ...record, checksum: `sha256:${sha256}` }
}

/** Of before pages were shared. */
function withOwnPages<M extends { id: string; pages: number[] }>(manifest: M) {
  const pages = manifest.pages.map((page): PageRecord => ({ page, backup: manifest.id, mark: null }))
  return { ...manifest, pages }
}

const directoryOf = ({ container, id }: BackupLocation) => `${container}/${id}`
const nameOf = (location: BackupLocation, object: string) => `${directoryOf(location)}/${object}`
const MANIFEST = 'manifest'
const PAGE = 'page-'

export const chunkName = (location: BackupLocation, index: number): string => nameOf(location, `chunk-${index}`)

export async function readPage(
  target: BackupTarget,
  location: BackupLocation,
  page: number,
): Promise<readonly ChunkRecord[]> {
  const name = nameOf(location, `${PAGE}${page}`)
  return parse(Page, name, await existing(target, name)).chunks
}

export async function writePage(
  target: BackupTarget,
  location: BackupLocation,
  page: number,
  chunks: readonly ChunkRecord[],
): Promise<void> {
  await target.put(nameOf(location, `${PAGE}${page}`), encode({ format: PAGE_FORMAT, chunks }))
}

/** The pages that were written. A list of names may be behind: what it does not have may be there all the same. */
export async function writtenPages(target: BackupTarget, location: BackupLocation): Promise<ReadonlySet<number>> {
  const names = await target.list(directoryOf(location), PAGE)
  return new Set(names.map((name) => Number(name.slice(PAGE.length))))
}

export async function hasPage(target: BackupTarget, location: BackupLocation, page: number): Promise<boolean> {
  return (await target.get(nameOf(location, `${PAGE}${page}`))) !== null
}

export async function readManifest(target: BackupTarget, location: BackupLocation): Promise<Manifest> {
  const name = nameOf(location, MANIFEST)
  return parseManifest(location, await existing(target, name))
}

export async function hasManifest(target: BackupTarget, location: BackupLocation): Promise<boolean> {
  return (await target.get(nameOf(location, MANIFEST))) !== null
}

function parseManifest(location: BackupLocation, bytes: Buffer): Manifest {
  const manifest = parse(Manifest, nameOf(location, MANIFEST), bytes)
  if (manifest.id === location.id) return manifest
  const reason = `the manifest in ${directoryOf(location)} is that of backup ${manifest.id}`
  throw new ServiceError('BackendFailure', { reason })
}

export async function writeManifest(
  target: BackupTarget,
  location: BackupLocation,
  manifest: Manifest & Record<string, unknown>,
): Promise<void> {
  const backups = [...new Set(manifest.pages.map(({ backup }) => backup))]
  const at = new Map(backups.map((backup, index) => [backup, index]))
  const pages = manifest.pages.map(({ page, backup, mark }) => [page, at.get(backup), mark])
  // What else a row of the database has is none of another cloud's business.
  const fields = ManifestFields.strip().parse({ ...manifest, format: MANIFEST_FORMAT, pages, page_backups: backups })
  await target.put(nameOf(location, MANIFEST), encode(fields))
}

/** All that lies on a target, in no order, whole or not. What has no such name was put there by somebody else. */
export async function listBackups(target: BackupTarget): Promise<BackupLocation[]> {
  const found: BackupLocation[] = []
  for (const container of await target.list('')) {
    for (const id of await target.list(container).catch(ignoreForeign))
      if (BackupId.safeParse(id).success) found.push({ container, id })
  }
  return found
}

const BackupId = z.uuid()

/** Beside the containers there may be files, and a `lost+found` that only root may read. */
function ignoreForeign(error: Error): string[] {
  const code = (error.cause as NodeJS.ErrnoException | undefined)?.code
  if (code === 'ENOTDIR' || code === 'EACCES') return []
  throw error
}

/** Names of pages that lie on a target, for who looks at many backups: many of them name the same. */
export function createPageLists(target: BackupTarget): (location: BackupLocation) => Promise<ReadonlySet<string>> {
  const lists = new Map<string, Promise<ReadonlySet<string>>>()
  return (location) => {
    const directory = directoryOf(location)
    const list = lists.get(directory) ?? target.list(directory, PAGE).then((names) => new Set(names))
    lists.set(directory, list)
    return list
  }
}

/**
 * Whether a backup has its manifest, which it answers too when it can be read, and the pages that this names, as `listPages` finds them;
 * null when nothing of the backup is left. Chunks are not looked at.
 */
export async function examine(
  target: BackupTarget,
  location: BackupLocation,
  listPages: ReturnType<typeof createPageLists>,
): Promise<{ state: BackupState; manifest: Manifest | null } | null> {
  const bytes = await target.get(nameOf(location, MANIFEST))
  if (bytes === null) {
    const isNothing = (await target.list(directoryOf(location))).length === 0
    return isNothing ? null : { state: 'without a manifest', manifest: null }
  }
  let manifest: Manifest
  try {
    manifest = parseManifest(location, bytes)
  } catch {
    return { state: 'incomplete', manifest: null }
  }
  for (const { page, backup } of manifest.pages) {
    const pages = await listPages({ container: location.container, id: backup })
    if (!pages.has(`${PAGE}${page}`)) return { state: 'incomplete', manifest }
  }
  return { state: 'whole', manifest }
}

/** Removes all that is left of a backup; may be repeated. */
export async function removeBackup(target: BackupTarget, location: BackupLocation): Promise<void> {
  await target.remove(nameOf(location, MANIFEST))
  await target.removeBelow(directoryOf(location))
}

/** An object of the format that cannot be what it was, or is not there any more. */
export function damaged(name: string, cause?: unknown): ServiceError {
  return new ServiceError('BackendFailure', { reason: `${name} on the backup target is damaged` }, { cause })
}

export async function existing(target: BackupTarget, name: string, memory?: Buffer): Promise<Buffer> {
  const bytes = await target.get(name, memory)
  if (bytes !== null) return bytes
  throw new ServiceError('BackendFailure', { reason: `${name} is not on the backup target` })
}

function encode(value: object): Buffer {
  const text = JSON.stringify(value)
  return Buffer.from(`${text.slice(0, -1)},"sha256":"${digestOf(text)}"}`)
}

const CHECKSUM = /,"sha256":"([0-9a-f]{64})"\}$/

function parse<S extends z.ZodType>(schema: S, name: string, bytes: Buffer): z.output<S> {
  try {
    const text = bytes.toString()
    const checksum = CHECKSUM.exec(text)
    if (checksum !== null && digestOf(`${text.slice(0, checksum.index)}}`) !== checksum[1]) {
      throw new Error('its checksum does not match')
    }
    return schema.parse(JSON.parse(text))
  } catch (error) {
    throw damaged(name, error)
  }
}

function digestOf(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}
