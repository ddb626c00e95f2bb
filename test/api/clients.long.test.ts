import { afterAll, beforeAll, describe, expect, vi } from 'vitest'
import { requireCommand } from '../tools/require-command.ts'
import { type ServedClients, serveClients } from '../tools/served-clients.ts'

/** Every command of the clients for the objects that test/api/clients.test.ts only touches. */

vi.setConfig({ testTimeout: 900_000, hookTimeout: 120_000 })

const withOpenstack = requireCommand('openstack', 'python3-openstackclient')
const withCinder = requireCommand('cinder', 'python3-cinderclient')

let served: ServedClients
beforeAll(async () => {
  served = await serveClients()
})
afterAll(() => served.close())

/** With what comes of it. */
async function run(...command: [string, ...string[]]): Promise<string> {
  const printed = await served.clients.run(command)
  await served.services.idle()
  return printed
}
const cinder = (...words: string[]) => run('cinder', ...words)
const openstack = (...words: string[]) => run('openstack', 'volume', ...words)
/** What a command prints that shows one object, or a list of them. */
const shownBy = async (...words: string[]) => JSON.parse(await openstack(...words, '-f', 'json'))

const SERVER = 'a0b1c2d3-0000-4000-8000-000000000001'
const uuidIn = (printed: string) => /\| ([0-9a-f-]{36}) +\|/.exec(printed)![1]!
const cellIn = (printed: string, key: string) => new RegExp(`\\| ${key} +\\| (.*?) +\\|`).exec(printed)![1]!

describe('cinder', () => {
  withCinder('types, their keys and who may use them', async () => {
    const id = uuidIn(await cinder('type-create', '--description', 'd', '--is-public', 'False', 'first'))
    await cinder('type-update', '--name', 'second', '--description', 'e', '--is-public', 'False', id)
    await cinder('type-key', 'second', 'set', 'multiattach=<is> True', 'note=x')
    await cinder('type-key', 'second', 'unset', 'note')
    expect(await cinder('extra-specs-list')).toMatch(/second +\| \{'multiattach': '<is> True'\}/)
    const shown = await cinder('type-show', 'second')
    expect(cellIn(shown, 'description')).toBe('e')
    expect(cellIn(shown, 'os-volume-type-access:is_public')).toBe('False')
    expect(await cinder('type-list', '--filters', 'is_public=False')).toContain('second')

    const project = 'a0b1c2d3000040008000000000000002'
    await cinder('type-access-add', '--volume-type', 'second', '--project-id', project)
    expect(await cinder('type-access-list', '--volume-type', id)).toContain(project)
    await expect(cinder('type-access-add', '--volume-type', id, '--project-id', project)).rejects.toThrow('HTTP 409')
    await cinder('type-access-remove', '--volume-type', 'second', '--project-id', project)
    expect(await cinder('type-access-list', '--volume-type', id)).not.toContain(project)

    await cinder('type-delete', 'second')
    await expect(cinder('type-show', 'second')).rejects.toThrow("No volumetype with a name or ID of 'second' exists")
    expect(await cinder('type-default')).toContain('__DEFAULT__')
    expect(await cinder('type-list')).toContain('__DEFAULT__')
  })

  withCinder('attachments from the reservation on', async () => {
    const id = cellIn(await cinder('create', '--name', 'a', '1'), 'id')
    const created = await cinder('--os-volume-api-version', '3.54', 'attachment-create', '--mode', 'ro', 'a', SERVER)
    const attachment = cellIn(created, 'id')
    expect(cellIn(created, 'status')).toBe('reserved')
    expect(await cinder('show', id)).toMatch(/\| status +\| reserved/)
    const connector = ['--initiator', 'iqn.2005-03.org.open-iscsi:x', '--ip', '127.0.0.1', '--host', 'h']
    const placed = ['--platform', 'x86_64', '--ostype', 'linux2', '--multipath', 'False', '--mountpoint', '/dev/vdb']
    expect(cellIn(await cinder('attachment-update', ...connector, ...placed, attachment), 'status')).toBe('attaching')
    await cinder('attachment-complete', attachment)
    expect(cellIn(await cinder('attachment-show', attachment), 'attach_mode')).toBe('ro')
    const listed = await cinder('attachment-list', '--all-tenants', '1', '--volume-id', id, '--status', 'attached')
    expect(uuidIn(listed)).toBe(attachment)
    expect(await cinder('attachment-list', '--filters', 'status=reserved')).not.toContain(attachment)
    await cinder('attachment-delete', attachment)
    await cinder('delete', 'a')
  })

  withCinder('messages', async () => {
    const id = cellIn(await cinder('create', '--hint', 'same_host=a0b1c2d3-0000-4000-8000-000000000003', '1'), 'id')
    const listed = await cinder('message-list', '--resource_uuid', id, '--level', 'ERROR', '--sort', 'created_at:desc')
    const message = uuidIn(listed)
    expect(listed).toContain('Could not find any available weighted backend.')
    const shown = await cinder('message-show', message)
    expect(cellIn(shown, 'resource_uuid')).toBe(id)
    expect(await cinder('message-list', '--filters', 'resource_type=VOLUME', '--limit', '1')).toContain(message)
    await cinder('message-delete', message)
    expect(await cinder('message-list')).not.toContain(message)
    await cinder('delete', id)
  })

  withCinder('services and their work', async () => {
    await cinder('service-disable', '--reason', 'rest', 'test@memory', 'cinder-volume')
    expect(await cinder('service-list', '--host', 'test@memory')).toMatch(
      /cinder-volume \| test@memory .*disabled.* rest/,
    )
    await cinder('service-enable', 'test@memory', 'cinder-volume')
    expect(await cinder('service-list', '--binary', 'cinder-volume', '--withreplication')).toMatch(/\| enabled/)
    await cinder('service-disable', 'test@memory', 'cinder-volume')
    await cinder('service-enable', 'test@memory', 'cinder-volume')
    await cinder('service-set-log', '--binary', 'cinder-volume', '--prefix', 'collie', 'WARNING')
    expect(await cinder('service-get-log', '--binary', 'cinder-volume')).toMatch(/collie +\| WARNING/)
    const about = ['--host', 'test@memory', '--binary', 'cinder-volume', '--is-up', 'True', '--disabled', 'False']
    expect(await cinder('work-cleanup', ...about)).toMatch(/will be cleaned:.*test@memory/s)
    await expect(cinder('work-cleanup', '--resource-type', 'Volume', '--resource-id', SERVER)).rejects.toThrow('400')
  })
})

describe('openstack', () => {
  withOpenstack('types, with encryption and access', async () => {
    const encryption = ['--encryption-provider', 'luks', '--encryption-cipher', 'aes-xts-plain64']
    const keys = ['--encryption-key-size', '256', '--encryption-control-location', 'front-end']
    await openstack('type', 'create', '--private', '--property', 'a=b', ...encryption, ...keys, 'sealed')
    expect(await shownBy('type', 'show', '--encryption-type', 'sealed')).toMatchObject({
      is_public: false,
      properties: { a: 'b' },
      encryption: { provider: 'luks', cipher: 'aes-xts-plain64', key_size: 256, control_location: 'front-end' },
    })
    await openstack('type', 'set', '--name', 'locked', '--description', 'e', '--property', 'c=d', 'sealed')
    await openstack('type', 'set', '--encryption-key-size', '512', 'locked')
    const [{ Encryption: sealed }] = await shownBy('type', 'list', '--private', '--encryption-type')
    expect(sealed).toMatchObject({ key_size: 512 })
    await openstack('type', 'set', '--project', 'collie', 'locked')
    const { access_project_ids: allowed } = await shownBy('type', 'show', 'locked')
    expect(allowed).toBeTruthy()
    await openstack('type', 'unset', '--property', 'a', '--project', 'collie', '--encryption-type', 'locked')
    const shown = await shownBy('type', 'show', '--encryption-type', 'locked')
    expect(shown).toMatchObject({ properties: { c: 'd' }, description: 'e', encryption: {} })
    expect(shown.access_project_ids).not.toBe(allowed)
    await openstack('type', 'delete', 'locked')
    expect(await shownBy('type', 'list', '--default')).toMatchObject([{ Name: '__DEFAULT__' }])
  })

  withOpenstack('attachments that somebody else has made', async () => {
    const { id } = await shownBy('create', '--size', '1', 'a')
    await served.services.idle()
    const attachment = cellIn(await cinder('attachment-create', 'a', SERVER), 'id')
    const version = (...words: string[]) => run('openstack', '--os-volume-api-version', '3.54', 'volume', ...words)
    const connector = ['--initiator', 'iqn.2005-03.org.open-iscsi:x', '--ip', '127.0.0.1', '--host', 'h']
    await version('attachment', 'set', ...connector, '--no-multipath', '--mountpoint', '/dev/vdb', attachment)
    await version('attachment', 'complete', attachment)
    const shown = JSON.parse(await version('attachment', 'show', attachment, '-f', 'json'))
    expect(shown).toMatchObject({ ID: attachment, 'Volume ID': id, 'Instance ID': SERVER, Status: 'attached' })
    const mine = ['--volume-id', id, '--status', 'attached', '--all-projects', '-f', 'json']
    expect(JSON.parse(await version('attachment', 'list', ...mine))).toMatchObject([{ ID: attachment }])
    await version('attachment', 'delete', attachment)
    expect(await shownBy('show', 'a')).toMatchObject({ status: 'available' })
    await openstack('delete', 'a')
  })

  withOpenstack('messages', async () => {
    const { id } = await shownBy(
      'create',
      '--size',
      '1',
      '--hint',
      'same_host=a0b1c2d3-0000-4000-8000-000000000003',
      'n',
    )
    await served.services.idle()
    const [message] = await shownBy('message', 'list', '--limit', '1')
    expect(message).toMatchObject({ 'Resource Type': 'VOLUME', 'Resource UUID': id })
    expect(await shownBy('message', 'show', message.ID)).toMatchObject({ message_level: 'ERROR', resource_uuid: id })
    await openstack('message', 'delete', message.ID)
    expect(await shownBy('message', 'list')).toEqual([])
    await openstack('delete', 'n')
  })

  withOpenstack('groups, their types and snapshots', async () => {
    const at = (...words: string[]) => run('openstack', '--os-volume-api-version', '3.38', 'volume', ...words)
    const shown = async (...words: string[]) => JSON.parse(await at(...words, '-f', 'json'))
    await at('group', 'type', 'create', '--description', 'd', '--private', 'plain')
    await at(
      'group',
      'type',
      'set',
      '--name',
      'together',
      '--public',
      '--property',
      'consistent_group_snapshot_enabled=<is> True',
      'plain',
    )
    // Its `group type show` stumbles over its own arguments.
    expect(cellIn(await cinder('--os-volume-api-version', '3.38', 'group-type-show', 'together'), 'is_public')).toBe(
      'True',
    )
    const types = await shown('group', 'type', 'list')
    expect(types.map(({ Name }: { Name: string }) => Name)).toContain('together')

    const { ID: id } = await shown(
      'group',
      'create',
      '--name',
      'g',
      '--availability-zone',
      'nova',
      'together',
      '__DEFAULT__',
    )
    await served.services.idle()
    await at('group', 'set', '--name', 'h', '--description', 'e', 'g')
    // `group show` and `group snapshot show` ask the library for what that does not have.
    expect(cellIn(await cinder('--os-volume-api-version', '3.38', 'group-show', 'h'), 'description')).toBe('e')
    await cinder(
      '--os-volume-api-version',
      '3.38',
      'create',
      '--group-id',
      id,
      '--volume-type',
      '__DEFAULT__',
      '--name',
      'in',
      '1',
    )
    await at('group', 'snapshot', 'create', '--name', 's', '--description', 'd', 'h')
    expect(await shown('group', 'snapshot', 'list')).toMatchObject([{ Name: 's', Status: 'available' }])
    const frozen = await cinder('--os-volume-api-version', '3.38', 'group-snapshot-show', 's')
    expect([cellIn(frozen, 'group_id'), cellIn(frozen, 'description')]).toEqual([id, 'd'])
    expect(await shown('group', 'list', '--all-projects')).toMatchObject([{ Name: 'h', Status: 'available' }])
    await expect(at('group', 'failover', 'h')).rejects.toThrow('replication')
    await at('group', 'snapshot', 'delete', 's')
    await at('group', 'delete', '--force', 'h')
    expect(await served.db('volume_groups')).toEqual([])
    expect(await served.db('volumes').whereNotNull('group_id')).toEqual([])
    await at('group', 'type', 'delete', 'together')
  })

  withOpenstack('transfers with and without snapshots', async () => {
    await openstack('create', '--size', '1', 'given')
    await openstack('snapshot', 'create', '--volume', 'given', 'beside')
    const at = (...words: string[]) =>
      run('openstack', '--os-volume-api-version', '3.55', 'volume', 'transfer', 'request', ...words)
    const without = JSON.parse(await at('create', '--no-snapshots', '--name', 'without', 'given', '-f', 'json'))
    expect(without).toMatchObject({ name: 'without', no_snapshots: true })
    expect(await shownBy('snapshot', 'show', 'beside')).toMatchObject({ status: 'available' })
    await at('delete', 'without')
    const offered = JSON.parse(await at('create', '--snapshots', '--name', 'with', 'given', '-f', 'json'))
    expect(JSON.parse(await at('list', '--all-projects', '-f', 'json'))).toMatchObject([
      { ID: offered.id, Name: 'with' },
    ])
    await at('accept', '--auth-key', offered.auth_key, offered.id)
    expect(await shownBy('snapshot', 'show', 'beside')).toMatchObject({ status: 'available' })
    await openstack('snapshot', 'delete', 'beside')
    await openstack('delete', 'given')
  })
})
