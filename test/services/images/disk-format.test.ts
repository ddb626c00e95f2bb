import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { checkRawHead, checkStructured } from '../../../src/services/images/disk-format.ts'
import { IMAGE_FORMATS, qemuNameOf, type StructuredFormat } from '../../../src/services/images/formats.ts'
import { requireCommand } from '../../tools/require-command.ts'

const withQemu = requireCommand('qemu-img', 'qemu-utils')
const directory = mkdtempSync(path.join(tmpdir(), 'collie-formats-'))
afterAll(() => rmSync(directory, { recursive: true }))

const formats = IMAGE_FORMATS.filter((format): format is StructuredFormat => format !== 'raw')

/** An image as QEMU makes it, of a small disk. */
function made(format: StructuredFormat, ...options: string[]): Buffer {
  const file = path.join(directory, `disk-${format}`)
  execFileSync('qemu-img', ['create', '-q', '-f', qemuNameOf(format), ...options, file, '8M'], { stdio: 'pipe' })
  return readFileSync(file)
}

/** Its complaint; null of what is taken. */
async function complaintOf(format: StructuredFormat, image: Buffer): Promise<string | null> {
  const read = async (offset: number, lengthBytes: number) => image.subarray(offset, offset + lengthBytes)
  return checkStructured('image', format, read).then(
    () => null,
    (error: Error) => error.message,
  )
}

const changed = (image: Buffer, change: (image: Buffer) => unknown): Buffer => {
  const copy = Buffer.from(image)
  change(copy)
  return copy
}

/** Of the same length, since the places of others are in the image. */
function replaced(image: Buffer, before: string, after: string): Buffer {
  const at = image.indexOf(before)
  expect(at).toBeGreaterThan(0)
  expect(after.length).toBe(before.length)
  return changed(image, (copy) => copy.write(after, at, 'latin1'))
}

withQemu('each format is taken for itself, for no other, and not for raw', async () => {
  for (const format of formats) {
    const image = made(format)
    expect(() => checkRawHead('image', image)).toThrow("claimed to be 'raw'")
    for (const claimed of formats) {
      const complaint = await complaintOf(claimed, image)
      if (claimed === format) expect(complaint).toBeNull()
      else expect(complaint).toContain(`claimed to be '${claimed}'`)
    }
    for (const length of [0, 3, 63, 100, 511]) {
      const complaint = await complaintOf(format, image.subarray(0, length))
      if (length < 64) expect(complaint).toContain(`claimed to be '${format}'`)
    }
  }
})

withQemu('a VMDK that names other files is refused, and so is one in several', async () => {
  expect(await complaintOf('vmdk', made('vmdk', '-o', 'subformat=streamOptimized'))).toBeNull()
  for (const subformat of ['monolithicFlat', 'twoGbMaxExtentSparse', 'twoGbMaxExtentFlat']) {
    expect(await complaintOf('vmdk', made('vmdk', '-o', `subformat=${subformat}`))).toContain(
      'Invalid VMDK create-type',
    )
  }
  const whole = made('vmdk')
  for (const [before, after, complaint] of [
    ['"monolithicSparse"', '"monolithicFlat"  ', 'Invalid VMDK create-type'],
    ['createType=', 'creatzType=', 'Invalid VMDK create-type'],
    ['parentCID=ffffffff', 'parentCID=12345678', 'backed by another file'],
    ['# Extent description', 'parentFileNameHint=x', 'backed by another file'],
    ['"disk-vmdk"', '"/etc/host"', 'Unsafe or unsupported extents'],
    [' SPARSE ', ' FLAT   ', 'Unsafe or unsupported extents'],
    ['# Extent description', 'RW 1 SPARSE "others"', 'Unsafe or unsupported extents'],
  ] as const) {
    expect(await complaintOf('vmdk', replaced(whole, before, after))).toContain(complaint)
  }
  for (const at of [12, 28, 36]) {
    const complaint = await complaintOf(
      'vmdk',
      changed(whole, (copy) => copy.writeBigUInt64LE(0n, at)),
    )
    expect(complaint).toContain('its description is not where')
  }
  // QEMU looks for it in 20 sectors, however short the header says that the description is.
  const short = changed(whole, (copy) => {
    copy.writeBigUInt64LE(1n, 36)
    copy.fill(' ', copy.indexOf('#DDB'), 512 * 4)
    copy.write('parentFileNameHint="/x"\0', 512 * 4, 'latin1')
  })
  expect(await complaintOf('vmdk', short)).toContain('backed by another file')
})

withQemu('a VDI, a VHD and a VHDX that are differences to another are refused', async () => {
  const vdi = made('vdi')
  expect(await complaintOf('vdi', made('vdi', '-o', 'static=on'))).toBeNull()
  for (const change of [
    (copy: Buffer) => copy.writeUInt32LE(4, 76),
    (copy: Buffer) => copy.writeUInt8(1, 430),
    (copy: Buffer) => copy.writeUInt8(1, 455),
  ]) {
    expect(await complaintOf('vdi', changed(vdi, change))).toContain('backed by another file')
  }
  const vhd = made('vhd')
  expect(
    await complaintOf(
      'vhd',
      changed(vhd, (copy) => copy.writeUInt32BE(4, 60)),
    ),
  ).toContain('backed by another file')
  expect(await complaintOf('vhd', made('vhd', '-o', 'subformat=fixed'))).toContain('a different format')
  const vhdx = made('vhdx')
  const parameters = vhdx.indexOf(Buffer.from('3767a1ca36fa434db3b633f0aa44e76b', 'hex'))
  const metadata = vhdx.lastIndexOf('metadata', parameters)
  const flags = metadata + vhdx.readUInt32LE(parameters + 16) + 4
  expect(
    await complaintOf(
      'vhdx',
      changed(vhdx, (copy) => copy.writeUInt8(2, flags)),
    ),
  ).toContain('backed by another')
})

it('an encrypted qcow2 is refused by its header', async () => {
  const head = Buffer.alloc(104)
  head.writeUInt32BE(0x514649fb, 0)
  head.writeUInt32BE(3, 4)
  expect(await complaintOf('qcow2', head)).toBeNull()
  head.writeUInt32BE(2, 32)
  expect(await complaintOf('qcow2', head)).toContain('not allowed to be encrypted')
})
