import { describe, expect, it } from 'vitest'
import { limitsOf, specsForSize } from '../../src/services/qos.ts'
import {
  admin,
  availableVolume,
  createHarness,
  type Harness,
  member,
  newAttachment,
  newVolume,
  outcome,
} from './harness.ts'

describe('specs for a size', () => {
  it.each([
    ['nothing per GiB stays', { total_iops_sec: '5', what: 'x' }, { total_iops_sec: '5', what: 'x' }],
    ['so much for each', { read_bytes_sec_per_gb: '7' }, { read_bytes_sec: 70 }],
    ['no less than', { total_iops_sec_per_gb: '7', total_iops_sec_per_gb_min: '100' }, { total_iops_sec: 100 }],
    ['no more than', { write_iops_sec_per_gb: '7', write_iops_sec_max: '50' }, { write_iops_sec: 50 }],
    [
      'the bound goes before the least, and both before what was said without',
      { total_iops_sec: '1', total_iops_sec_per_gb: '7', total_iops_sec_per_gb_min: '100', total_iops_sec_max: '90' },
      { total_iops_sec: 90 },
    ],
    [
      'a burst is one where nothing is per GiB',
      { total_iops_sec: '5', total_iops_sec_max: '50', total_iops_sec_max_length: '9' },
      { total_iops_sec: '5', total_iops_sec_max: '50', total_iops_sec_max_length: '9' },
    ],
    ['what is no number stays', { total_iops_sec_per_gb: 'many' }, { total_iops_sec_per_gb: 'many' }],
  ])('%s', (_, specs, expected) => {
    expect(specsForSize(specs as unknown as Record<string, string>, 10)).toEqual(expected)
  })
})

describe('limits of specs', () => {
  it('are the six rates and their bursts', () => {
    expect(
      limitsOf({
        total_iops_sec: '100',
        total_iops_sec_max: '500',
        total_iops_sec_max_length: '60',
        read_iops_sec: 40,
        write_bytes_sec: '1048576',
        write_bytes_sec_max: '2097152',
      }),
    ).toEqual({
      totalIops: { perSecond: 100, burstPerSecond: 500, burstSeconds: 60 },
      readIops: { perSecond: 40 },
      writeBytes: { perSecond: 1048576, burstPerSecond: 2097152, burstSeconds: 1 },
    })
  })

  it.each([
    {},
    { total_iops_sec: '0' },
    { total_iops_sec: '-5' },
    { total_iops_sec: '1.5' },
    { total_iops_sec: '' },
    { total_iops_sec_max: '500' },
    { maxIOPS: '5' },
  ])('%j limits nothing', (specs) => {
    expect(limitsOf(specs as unknown as Record<string, string>)).toBe(null)
  })

  it('are without a burst that is none', () => {
    expect(limitsOf({ total_iops_sec: '10', total_iops_sec_max: '10' })).toEqual({ totalIops: { perSecond: 10 } })
  })
})

/** A type whose volumes are promised something. */
async function typeWith(
  { services }: Harness,
  name: string,
  consumer: 'front-end' | 'back-end' | 'both',
  specs: Record<string, string>,
): Promise<{ typeId: string; qosId: string }> {
  const type = await services.types.create(admin, { name, description: null, isPublic: true, extraSpecs: {} })
  const qos = await services.qosSpecs.create(admin, { name, consumer, specs })
  await services.qosSpecs.associate(admin, qos.id, type.id)
  return { typeId: type.id, qosId: qos.id }
}

async function attach({ services }: Harness, volumeId: string) {
  const attachment = await services.attachments.create(member, newAttachment(volumeId, { connector: { host: 'h' } }))
  await services.attachments.complete(member, attachment.id)
  return attachment
}

const limitsAt = ({ backend }: Harness, volumeId: string) =>
  [...backend.volumes.get(volumeId)!.rights.values()].map(({ limits }) => limits)

describe('a connection', () => {
  it.each([
    ['front-end', { total_iops_sec: 60, note: 'x' }, null],
    ['back-end', null, { totalIops: { perSecond: 60 } }],
    ['both', { total_iops_sec: 60, note: 'x' }, { totalIops: { perSecond: 60 } }],
  ] as const)('of a type with %s specs tells the hypervisor and the backend what is theirs', async (...words) => {
    const [consumer, frontEnd, limits] = words
    const harness = await createHarness()
    await typeWith(harness, 'fast', consumer, { total_iops_sec_per_gb: '20', note: 'x' })
    const id = await availableVolume(harness, { volumeType: 'fast', sizeGib: 3 })
    const { connectionInfo } = await attach(harness, id)
    expect(connectionInfo).toMatchObject({ qos_specs: frontEnd })
    expect(limitsAt(harness, id)).toEqual([limits])
  })

  it('of a type without specs tells nobody anything', async () => {
    const harness = await createHarness()
    const id = await availableVolume(harness)
    expect((await attach(harness, id)).connectionInfo).toMatchObject({ qos_specs: null })
    expect(limitsAt(harness, id)).toEqual([null])
  })

  it('keeps what was agreed when the specs change; the next one has the new', async () => {
    const harness = await createHarness()
    const { services } = harness
    const { qosId } = await typeWith(harness, 'fast', 'back-end', { read_iops_sec: '10' })
    const id = await availableVolume(harness, { volumeType: 'fast' })
    const attachment = await attach(harness, id)
    await services.qosSpecs.setKeys(admin, qosId, { consumer: null, specs: { read_iops_sec: '20' } })
    expect(limitsAt(harness, id)).toEqual([{ readIops: { perSecond: 10 } }])
    await services.attachments.delete(member, attachment.id)
    await attach(harness, id)
    expect(limitsAt(harness, id)).toEqual([{ readIops: { perSecond: 20 } }])
  })
})

it('limits per GiB follow the volume when it is extended in use', async () => {
  const harness = await createHarness()
  await typeWith(harness, 'fast', 'both', { write_bytes_sec_per_gb: '1000' })
  const id = await availableVolume(harness, { volumeType: 'fast', sizeGib: 1 })
  await attach(harness, id)
  expect(limitsAt(harness, id)).toEqual([{ writeBytes: { perSecond: 1000 } }])
  await harness.services.volumes.extend(member, id, 5)
  await harness.services.idle()
  expect(limitsAt(harness, id)).toEqual([{ writeBytes: { perSecond: 5000 } }])
  expect(await harness.services.volumes.get(member, id)).toMatchObject({ status: 'in-use', sizeGib: 5 })
})

describe('a retype in use', () => {
  const retype = (harness: Harness, id: string, newType: string) =>
    harness.services.volumes.retype(member, id, { newType, migrationPolicy: 'never' })

  it('brings the limits of the new type to those who are connected', async () => {
    const harness = await createHarness()
    await typeWith(harness, 'slow', 'back-end', { total_iops_sec: '10' })
    await typeWith(harness, 'fast', 'back-end', { total_iops_sec: '1000' })
    const id = await availableVolume(harness, { volumeType: 'slow' })
    await attach(harness, id)
    for (const [type, limits] of [
      ['fast', { totalIops: { perSecond: 1000 } }],
      ['__DEFAULT__', null],
      ['slow', { totalIops: { perSecond: 10 } }],
    ] as const) {
      await retype(harness, id, type)
      await harness.services.idle()
      expect(limitsAt(harness, id)).toEqual([limits])
      expect(await harness.services.volumes.get(member, id)).toMatchObject({ status: 'in-use', volumeTypeName: type })
    }
  })

  it('is refused when what the hypervisor was told would change', async () => {
    const harness = await createHarness()
    const { services } = harness
    const { qosId } = await typeWith(harness, 'told', 'both', { total_iops_sec: '10' })
    await typeWith(harness, 'kept', 'back-end', { total_iops_sec: '10' })
    const same = await services.types.create(admin, { name: 'same', description: null, isPublic: true, extraSpecs: {} })
    await services.qosSpecs.associate(admin, qosId, same.id)
    const told = await availableVolume(harness, { volumeType: 'told' })
    await attach(harness, told)
    for (const type of ['kept', '__DEFAULT__']) {
      await expect(retype(harness, told, type)).rejects.toThrow('for in-use volumes front-end qos specs cannot change')
    }
    expect(await outcome(retype(harness, told, 'same'))).toBe('done')
    const { id: free } = await services.volumes.create(member, newVolume({ volumeType: 'told' }))
    await services.idle()
    expect(await outcome(retype(harness, free, 'kept'))).toBe('done')
    await services.idle()
    expect(await services.volumes.get(member, free)).toMatchObject({ status: 'available', volumeTypeName: 'kept' })
  })
})
