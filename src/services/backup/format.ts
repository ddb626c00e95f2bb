import { z } from 'zod'
import { ServiceError } from '../../errors.ts'
import type { BackupTarget } from './target.ts'
import { VolumeRecord } from './volume-record.ts'

/**
 * How a backup lies on its target, below `<container>/<backup id>/`:
 *
 *   chunk-<index>   4 MiB of the volume, compressed when that helps
 *   page-<index>    JSON: the chunks of 128 MiB of the volume, those with data, each with its SHA-256
 *   manifest        JSON: what was backed up, and what the volume was called; written last, removed first: a backup without one is none
 *
 * A chunk that an incremental backup found unchanged is not written again; its record names the backup that has it. So a restore
 * reads the pages of one backup only, whatever it is based on.
 */
export const CHUNK_BYTES = 4 * 1024 * 1024
export const PAGE_CHUNKS = 32
export const PAGE_BYTES = CHUNK_BYTES * PAGE_CHUNKS

const FORMAT = 2
/** Of pages, and of manifests that tell nothing of the volume. */
const FIRST_FORMAT = 1

/** One without a manifest is none; one that is incomplete lacks a page, or its manifest cannot be read. */
export type BackupState = 'whole' | 'without a manifest' | 'incomplete'

/** Where a backup is. */
export interface BackupLocation {
  container: string
  id: string
}

const ChunkRecord = z.strictObject({
  /** Of the chunk in the volume: its offset divided by CHUNK_BYTES. */
  index: z.int().min(0),
  /** Of the bytes of the volume, hexadecimal. The last chunk of a volume may be shorter than the others. */
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  encoding: z.enum(['deflate', 'none']),
  /** The backup that has the chunk. */
  backup: z.uuid(),
})
export type ChunkRecord = z.infer<typeof ChunkRecord>

const Page = z.strictObject({ format: z.literal(FIRST_FORMAT), chunks: z.array(ChunkRecord).max(PAGE_CHUNKS) })

const ManifestFields = z.object({
  format: z.literal(FORMAT),
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
  /** Pages with data, ascending. */
  pages: z.array(z.int().min(0)),
  /** What comes back with the bytes; null when the backup was made before that was kept. */
  volume: VolumeRecord.nullable(),
})
const FirstManifest = ManifestFields.omit({ volume: true })
  .extend({ format: z.literal(FIRST_FORMAT) })
  .strict()
  .transform((manifest) => ({ ...manifest, volume: null }))
const Manifest = z.union([ManifestFields.strict(), FirstManifest])
export type Manifest = z.output<typeof Manifest>

const nameOf = ({ container, id }: BackupLocation, object: string) => `${container}/${id}/${object}`
const MANIFEST = 'manifest'
const PAGE = 'page-'

export const chunkName = (location: BackupLocation, index: number): string => nameOf(location, `chunk-${index}`)

export async function readPage(
  target: BackupTarget,
  location: BackupLocation,
  page: number,
): Promise<readonly ChunkRecord[]> {
  const name = nameOf(location, `${PAGE}${page}`)
  return parse(Page, name, await target.get(name)).chunks
}

export async function writePage(
  target: BackupTarget,
  location: BackupLocation,
  page: number,
  chunks: ChunkRecord[],
): Promise<void> {
  await target.put(nameOf(location, `${PAGE}${page}`), encode({ format: FIRST_FORMAT, chunks }))
}

/** The pages that were written, ascending. */
export async function listPages(target: BackupTarget, location: BackupLocation): Promise<number[]> {
  const names = await target.list(`${location.container}/${location.id}`)
  const pages = names.filter((name) => name.startsWith(PAGE)).map((name) => Number(name.slice(PAGE.length)))
  return pages.sort((a, b) => a - b)
}

export async function readManifest(target: BackupTarget, location: BackupLocation): Promise<Manifest> {
  const name = nameOf(location, MANIFEST)
  const manifest = parse(Manifest, name, await target.get(name))
  if (manifest.id === location.id) return manifest
  const reason = `the manifest in ${location.container}/${location.id} is that of backup ${manifest.id}`
  throw new ServiceError('BackendFailure', { reason })
}

export async function writeManifest(
  target: BackupTarget,
  location: BackupLocation,
  manifest: Omit<Manifest, 'format'>,
): Promise<void> {
  // What else a row of the database has is none of another cloud's business.
  await target.put(nameOf(location, MANIFEST), encode(ManifestFields.parse({ format: FORMAT, ...manifest })))
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

/** Whether a backup has its manifest, and the pages that this names; null when nothing of it is left. Chunks are not looked at. */
export async function stateOf(target: BackupTarget, location: BackupLocation): Promise<BackupState | null> {
  const names = new Set(await target.list(`${location.container}/${location.id}`))
  if (names.size === 0) return null
  if (!names.has(MANIFEST)) return 'without a manifest'
  const manifest = await readManifest(target, location).catch(() => null)
  return manifest?.pages.every((page) => names.has(`${PAGE}${page}`)) ? 'whole' : 'incomplete'
}

/** Removes all that is left of a backup; may be repeated. */
export async function removeBackup(target: BackupTarget, location: BackupLocation): Promise<void> {
  await target.remove(nameOf(location, MANIFEST))
  for (const name of await target.list(`${location.container}/${location.id}`)) {
    await target.remove(nameOf(location, name))
  }
}

function encode(value: object): Buffer {
  return Buffer.from(JSON.stringify(value))
}

function parse<S extends z.ZodType>(schema: S, name: string, bytes: Buffer): z.output<S> {
  try {
    return schema.parse(JSON.parse(bytes.toString()))
  } catch (error) {
    throw new ServiceError('BackendFailure', { reason: `${name} on the backup target is damaged` }, { cause: error })
  }
}
