/**
 * Where images are kept. Rejects with a ServiceError: ImageNotFound, ImageNotAuthorized, GlanceConnectionFailed while it cannot
 * be reached, ImageRefused for what it does not take.
 *
 * Each call is made with the token of the user who wants it, so that he gets at no image that is not his.
 */
export interface ImageService {
  show(token: string, id: string): Promise<Image>
  /** Those of exactly that name that the user sees: at most two, which is enough to know that it says too little. */
  named(token: string, name: string): Promise<Image[]>
  /** Makes an image without content. */
  create(token: string, draft: ImageDraft): Promise<Image>
  /** Deleting what is not there succeeds. */
  remove(token: string, id: string): Promise<void>
  download(token: string, id: string): Promise<ImageBody>
  upload(token: string, id: string, sizeBytes: number): ImageUpload
}

export interface Image {
  id: string
  name: string | null
  /** `queued` without content, `saving` while it gets it, then `active`. */
  status: string
  /** Null until it is active. */
  sizeBytes: number | null
  virtualSizeBytes: number | null
  minDiskGib: number
  minRamMib: number
  diskFormat: string | null
  containerFormat: string | null
  /** MD5 of the content, hexadecimal. */
  checksum: string | null
  hash: ImageHash | null
  visibility: string | null
  isProtected: boolean
  /** What users and other services noted. */
  properties: Record<string, string>
}

export interface ImageHash {
  /** In OpenSSL's words. */
  algorithm: string
  /** Hexadecimal. */
  value: string
}

export interface ImageDraft {
  name: string
  diskFormat: string
  containerFormat: string
  /** Null leaves them to the image service. */
  visibility: string | null
  isProtected: boolean | null
  properties: Record<string, string>
}

export interface ImageBody {
  /** The next bytes, null at the end. */
  read(): Promise<Buffer | null>
  close(): void
}

export interface ImageUpload {
  /** Resolves with false when the service wants no more; `finish` says why. */
  write(bytes: Buffer): Promise<boolean>
  /** Resolves when the service has all of it and says so. */
  finish(): Promise<void>
  abort(): void
}
