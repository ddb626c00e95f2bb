import { randomUUID } from 'node:crypto'
import { expect } from 'vitest'
import { ServiceError } from '../../../src/errors.ts'
import { createKeystoneAccount } from '../../../src/keystone/account.ts'
import { systemClock } from '../../../src/runtime/clock.ts'
import { createKeptHttp } from '../../../src/runtime/http-client.ts'
import { systemRandom } from '../../../src/runtime/random.ts'
import { keystoneLogin } from '../../../src/services/backup/swift-login.ts'
import { createSwiftTarget } from '../../../src/services/backup/swift-target.ts'
import { Keystone, withKeystone } from '../../tools/keystone.ts'
import { Swift } from '../../tools/swift.ts'

const TIMEOUT_MS = 30_000

withKeystone('a Swift that asks Keystone is entered by the catalog, and again when its token was revoked', async () => {
  const keystone = await Keystone.start()
  const http = createKeptHttp()
  let swift: Swift | undefined
  try {
    const service = await keystone.createProject('service')
    await keystone.createUser('swift', service, ['admin', 'service'])
    await keystone.createUser('cinder', service, ['member'])
    await keystone.createUser('nobody', service, ['reader'])
    swift = await Swift.start({ KEYSTONE_URL: keystone.url, KEYSTONE_PASSWORD: keystone.password })
    await keystone.register('object-store', 'swift', `${swift.url}/v1/AUTH_$(project_id)s`)

    const ports = { http, clock: systemClock, random: systemRandom, close: () => {} }
    const open = (userName: string, password: string) => {
      const account = createKeystoneAccount({
        ...ports,
        authUrl: keystone.url,
        userName,
        password,
        projectName: 'service',
        userDomainName: 'Default',
        projectDomainName: 'Default',
        interface: 'internal',
        regionName: null,
        timeoutMs: TIMEOUT_MS,
        refusal: (reason) => new ServiceError('BackendFailure', { reason }),
      })
      const login = keystoneLogin(account, null)
      return { login, target: createSwiftTarget(ports, login, { container: 'backups', timeoutMs: TIMEOUT_MS }) }
    }
    const { login, target } = open('cinder', keystone.password)
    const name = `container-${randomUUID()}/one/chunk-1`
    await target.put(name, Buffer.from('x'))
    expect((await target.get(name))?.toString()).toBe('x')
    await keystone.revoke((await login.enter()).token)
    expect((await target.get(name))?.toString()).toBe('x')

    await expect(open('nobody', keystone.password).target.put(name, Buffer.from('y'))).rejects.toThrow(
      /the account in backup_swift may not do that/,
    )
    const refused = open('cinder', 'not-the-password').target.list('')
    await expect(refused).rejects.toThrow(/Keystone gives cinder no token: 401/)
    await expect(refused).rejects.not.toThrow(/not-the-password/)
  } finally {
    http.close()
    await swift?.stop()
    await keystone.stop()
  }
})
