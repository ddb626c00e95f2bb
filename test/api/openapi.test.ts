import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { openApiDocument } from '../../src/api/openapi.ts'
import { ROUTES } from '../../src/api/v3/index.ts'

const COMMITTED = new URL('../../openapi/cinder.json', import.meta.url)

interface Document {
  paths: Record<string, Record<string, Record<string, unknown>>>
}

describe('the OpenAPI document', async () => {
  const document = (await openApiDocument(ROUTES)) as Document

  test('in the tree is the one of the routes (else: npm run openapi)', () => {
    expect(JSON.parse(readFileSync(COMMITTED, 'utf8'))).toEqual(JSON.parse(JSON.stringify(document)))
  })

  test('has every route, with its rule and its range of microversions', () => {
    for (const { method, url, action, operation, policy, since } of ROUTES) {
      const path = `/v3/{project_id}${url.replace(/:(\w+)/g, '{$1}')}`
      const shown = document.paths[path]?.[method.toLowerCase()]
      expect(shown, operation).toBeDefined()
      if (action !== null) {
        expect(JSON.stringify(shown)).toContain(`"action-name":"${action}"`)
        continue
      }
      expect(shown).toMatchObject({
        operationId: operation,
        'x-openstack': {
          ...(policy === null ? {} : { policy }),
          ...(since === 0 ? {} : { 'min-ver': `3.${since}` }),
        },
      })
    }
  })

  test('shows the marks of fields', () => {
    const text = JSON.stringify(document.paths['/v3/{project_id}/volumes/{volume_id}']?.get)
    expect(text).toContain('"group_id":{"x-openstack":{"min-ver":"3.13"},')
    expect(text).toContain('"provider_id":{"x-openstack":{"min-ver":"3.21","admin-only":true},')
    expect(text).not.toMatch(/"required":\[[^\]]*"group_id"/)
  })
})
