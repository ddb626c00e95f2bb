/** The formats of disk images that are known here, by the names that Glance gives them, with those that QEMU does. */
const QEMU_NAMES = {
  raw: 'raw',
  qcow2: 'qcow2',
  vmdk: 'vmdk',
  vdi: 'vdi',
  vhd: 'vpc',
  vhdx: 'vhdx',
} as const

export type ImageFormat = keyof typeof QEMU_NAMES
/** Those whose bytes are not the disk's. */
export type StructuredFormat = Exclude<ImageFormat, 'raw'>

export const IMAGE_FORMATS = Object.keys(QEMU_NAMES) as readonly ImageFormat[]

export const qemuNameOf = (format: ImageFormat): string => QEMU_NAMES[format]
